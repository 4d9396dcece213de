//! The pictures.

use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use hydralora_finetune::Result;
use hydralora_finetune::base::ADAPTED;
use hydralora_finetune::clusters::Elbow;
use hydralora_finetune::corpus::Text;
use hydralora_finetune::evaluate::Score;

const FONT: &str = "demo";
const INK: RGBColor = RGBColor(40, 44, 52);
const COLOURS: [RGBColor; 2] = [RGBColor(217, 95, 2), RGBColor(31, 99, 170)];

/// Loads the built-in font, so that no font of the system is needed. Call it once before drawing.
pub fn load_font() -> Result<()> {
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| "the built-in font cannot be read".into())
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, BitMapBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws a caption and axes: x in whole numbers, y with `digits` behind the point.
fn chart<'a>(
    root: &Area<'a>,
    caption: &str,
    [x, y]: [Range<f64>; 2],
    [x_name, y_name]: [&str; 2],
    digits: usize,
) -> Result<Chart<'a>> {
    let mut chart = ChartBuilder::on(root)
        .caption(caption, (FONT, 44, &INK))
        .margin(30)
        .x_label_area_size(80)
        .y_label_area_size(100)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.12))
        .axis_style(INK.mix(0.6))
        .label_style((FONT, 28, &INK))
        .axis_desc_style((FONT, 32, &INK))
        .x_desc(x_name)
        .y_desc(y_name)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.digits$}"))
        .draw()?;
    Ok(chart)
}

/// Plots the training losses of both runs: thin lines for single steps, their running means on top.
pub fn losses(path: &Path, first: u32, curves: [(&str, &[f64]); 2]) -> Result<()> {
    let root = BitMapBackend::new(path, (1600, 960)).into_drawing_area();
    root.fill(&WHITE)?;
    let steps = curves.iter().map(|(_, curve)| curve.len()).max().unwrap_or(0);
    let all = || curves.iter().flat_map(|(_, curve)| curve.iter().copied());
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let margin = 0.05 * (high - low).max(0.1);
    let mut chart = chart(
        &root,
        "Fine-tuning the frozen base on the mixed texts",
        [f64::from(first)..f64::from(first) + (steps as f64 - 1.0).max(1.0), low - margin..high + margin],
        ["step", "training loss (bits per byte)"],
        1,
    )?;
    let points = |values: &[f64]| -> Vec<(f64, f64)> {
        (first..).map(f64::from).zip(values.iter().copied()).collect()
    };
    for ((_, curve), colour) in curves.iter().zip(COLOURS) {
        chart.draw_series(LineSeries::new(points(curve), colour.mix(0.25)))?;
    }
    for ((name, curve), colour) in curves.iter().zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(points(&running_mean(curve)), colour.stroke_width(4)))?
            .label(spaced(name))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 40, y)], colour.stroke_width(4)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(24)
        .legend_area_size(56)
        .label_font((FONT, 32, &INK))
        .background_style(WHITE.mix(0.85))
        .border_style(INK.mix(0.2))
        .draw()?;
    Ok(root.present()?)
}

/// Plots what clusters of the texts leave unexplained, with the elbow marked.
pub fn elbow(path: &Path, elbow: &Elbow) -> Result<()> {
    let root = BitMapBackend::new(path, (1600, 960)).into_drawing_area();
    root.fill(&WHITE)?;
    let highest = elbow.distances.iter().copied().fold(0.0, f64::max);
    let mut chart = chart(
        &root,
        "Clusters of the texts' pieces",
        [0.5..elbow.distances.len() as f64 + 0.5, 0.0..1.05 * highest.max(f64::MIN_POSITIVE)],
        ["clusters", "mean squared distance to a centre"],
        2,
    )?;
    let points: Vec<(f64, f64)> = (1..).map(f64::from).zip(elbow.distances.iter().copied()).collect();
    let at = points[elbow.clusters - 1];
    chart.draw_series(LineSeries::new(points.iter().copied(), COLOURS[1].stroke_width(4)))?;
    chart.draw_series(points.iter().map(|&point| Circle::new(point, 7, COLOURS[1].filled())))?;
    chart.draw_series([Circle::new(at, 18, COLOURS[0].stroke_width(4))])?;
    Ok(root.present()?)
}

/// The mean over the steps around each step: at most a twentieth of the run.
fn running_mean(curve: &[f64]) -> Vec<f64> {
    let reach = curve.len() / 40;
    (0..curve.len())
        .map(|at| {
            // The loss falls steeply at first, so a lopsided mean would start too low. At the flat end a
            // lopsided mean does no harm, while a symmetric one would shrink to a single step's noise.
            let before = reach.min(at);
            let after = before.min(curve.len() - 1 - at);
            let around = &curve[at - before..=at + after];
            around.iter().sum::<f64>() / around.len() as f64
        })
        .collect()
}

/// Plots each layer's mean gates as a heat map: a row for each text, a column for each expert.
pub fn routing(path: &Path, name: &str, texts: &[Text], scores: &[Score]) -> Result<()> {
    let experts = i32::try_from(scores.first().map_or(0, |score| score.gates[0].len()))?;
    let rows = i32::try_from(texts.len())?;
    let layers = i32::try_from(ADAPTED.len())?;
    let [left, top, gap, right, bottom] = [210, 190, 90, 60, 90];
    let (cell_width, cell_height) = ((1000 / experts.max(1)).clamp(1, 160), 100);
    let map_width = cell_width * experts;
    let width = (left + layers * map_width + (layers - 1) * gap + right).max(1200);
    let height = top + cell_height * rows + bottom;
    let root = BitMapBackend::new(path, (width as u32, height as u32)).into_drawing_area();
    root.fill(&WHITE)?;

    let write = |text: &str, size: i32, colour: RGBColor, anchor: HPos, place: (i32, i32)| {
        let style = (FONT, size).into_font().color(&colour).pos(Pos::new(anchor, VPos::Center));
        root.draw_text(text, &style, place)
    };
    let title = format!("{}: mean gate per text and expert", spaced(name));
    write(&title, 44, INK, HPos::Center, (width / 2, 55))?;
    let gates = || scores.iter().flat_map(|score| score.gates.iter().flatten().copied());
    let highest = gates().fold(f64::MIN_POSITIVE, f64::max);
    for (layer, layer_name) in (0..).zip(ADAPTED) {
        let x0 = left + layer * (map_width + gap);
        let centre = x0 + map_width / 2;
        write(layer_name, 36, INK, HPos::Center, (centre, 118))?;
        write("expert", 30, INK, HPos::Center, (centre, height - bottom + 36))?;
        for expert in 0..experts {
            // Leave out numbers that would touch each other.
            if cell_width >= 40 || expert % 8 == 0 {
                let x = x0 + expert * cell_width + cell_width / 2;
                write(&(expert + 1).to_string(), 28, INK, HPos::Center, (x, top - 22))?;
            }
        }
        for (row, (text, score)) in (0..).zip(texts.iter().zip(scores)) {
            let y = top + row * cell_height;
            if layer == 0 {
                write(&shortened(&text.name), 32, INK, HPos::Right, (left - 20, y + cell_height / 2))?;
            }
            for (column, &gate) in (0..).zip(&score.gates[layer as usize]) {
                let x = x0 + column * cell_width;
                let share = gate / highest;
                let seam = if cell_width >= 10 { 3 } else { 0 };
                let corners = [(x, y), (x + cell_width - seam, y + cell_height - 3)];
                root.draw(&Rectangle::new(corners, shade(share).filled()))?;
                if cell_width >= 70 {
                    let colour = if share > 0.5 { WHITE } else { INK };
                    let place = (x + cell_width / 2, y + cell_height / 2);
                    write(&format!("{gate:.2}"), 32, colour, HPos::Center, place)?;
                }
            }
        }
    }
    Ok(root.present()?)
}

/// Doubles the spaces: after an `A`, the font's space is too narrow to see.
fn spaced(name: &str) -> String {
    name.replace(' ', "  ")
}

/// A colour from nearly white at 0 to dark blue at 1.
fn shade(share: f64) -> RGBColor {
    let (from, to) = ([240.0, 244.0, 250.0], [12.0, 58.0, 120.0]);
    let mix = |at: usize| (from[at] + (to[at] - from[at]) * share).round() as u8;
    RGBColor(mix(0), mix(1), mix(2))
}

/// A name that fits beside the map.
fn shortened(name: &str) -> String {
    if name.chars().count() <= 12 { name.to_owned() } else { name.chars().take(11).chain(['…']).collect() }
}
