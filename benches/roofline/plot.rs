//! The roofline: what the device can do at each ratio of work to memory traffic, and the kernels.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::register_font;

use crate::report::{KernelRow, Report};

const FONT: &str = "roofline";
const INK: RGBColor = RGBColor(40, 44, 52);
/// forward, `backward_input`, `backward_params`, adamw
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 99, 170),
    RGBColor(217, 95, 2),
    RGBColor(27, 138, 90),
    RGBColor(140, 86, 160),
    RGBColor(120, 94, 64),
    RGBColor(198, 60, 110),
];

pub fn roofline(path: &Path, report: &Report) -> Result<(), Box<dyn Error>> {
    // No font of the system's is used.
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| "the built-in font cannot be read")?;
    let point = |row: &KernelRow| (row.flops as f64 / row.bytes as f64, row.flops as f64 / row.seconds / 1e9);
    let points: Vec<_> = report.kernels.iter().map(point).collect();
    let roof = |intensity: f64| (intensity * report.limits.bandwidth).min(report.limits.arithmetic) / 1e9;
    let span = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)))
    };
    let ridge = report.limits.arithmetic / report.limits.bandwidth;
    let (left, right) = span(&mut points.iter().map(|point| point.0).chain([ridge]));
    let (left, right) = (left / 1.5, right * 2.0);
    let (low, _) = span(&mut points.iter().map(|point| point.1).chain([roof(left)]));
    let root = BitMapBackend::new(path, (1600, 1000)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(report.device.split(" (").next().unwrap_or_default(), (FONT, 40, &INK))
        .margin(30)
        .x_label_area_size(80)
        .y_label_area_size(110)
        .build_cartesian_2d((left..right).log_scale(), (low / 1.5..roof(right) * 1.6).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.12))
        .axis_style(INK.mix(0.6))
        .label_style((FONT, 28, &INK))
        .axis_desc_style((FONT, 32, &INK))
        .x_labels(5)
        .x_desc("operations per byte of memory traffic")
        .y_desc("GFLOP/s")
        .draw()?;
    let steps = 200;
    let line = (0..=steps).map(|step| {
        let intensity = left * (right / left).powf(f64::from(step) / f64::from(steps));
        (intensity, roof(intensity))
    });
    chart
        .draw_series(LineSeries::new(line, INK.stroke_width(3)))?
        .label("limit of the device")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 30, y)], INK.stroke_width(3)));
    let kernels = ["forward", "backward_input", "backward_params", "adamw", "linear", "linear, backward"];
    for (kernel, colour) in kernels.into_iter().zip(COLOURS) {
        let rows = report.kernels.iter().filter(|row| row.kernel.starts_with(kernel));
        chart
            .draw_series(rows.map(|row| {
                // Half precision is drawn as a ring.
                let style = if row.element == "f32" { colour.filled() } else { colour.stroke_width(2) };
                Circle::new(point(row), 8, style)
            }))?
            .label(kernel)
            .legend(move |(x, y)| Circle::new((x + 15, y), 8, colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .margin(20)
        .legend_area_size(45)
        .background_style(WHITE.mix(0.9))
        .border_style(INK.mix(0.3))
        .label_font((FONT, 28, &INK))
        .draw()?;
    root.present()?;
    Ok(())
}
