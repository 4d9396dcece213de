//! The pictures: the training losses, and which experts the tokens of each text take.

use std::path::Path;

use hydralora_llama::adapters::Routing;
use plotters::prelude::*;
use plotters::style::register_font;

use crate::error::Error;

const FONT: &str = "llama";
const INK: RGBColor = RGBColor(40, 44, 52);
const COLOURS: [RGBColor; 2] = [RGBColor(217, 95, 2), RGBColor(31, 99, 170)];

/// Loads the built-in font, so that no font of the system is needed. Call it once before drawing.
pub fn load_font() -> Result<(), Error> {
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| Error::Picture("the built-in font cannot be read".to_owned()))
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Picture(error.to_string())
}

/// A run's name, its first step, and the loss of each step.
pub type Curve = (String, u32, Vec<f64>);

pub fn losses(path: &Path, curves: &[Curve]) -> Result<(), Error> {
    let root = BitMapBackend::new(path, (1600, 900)).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let all = || curves.iter().flat_map(|(_, _, losses)| losses.iter().copied());
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let first = curves.iter().map(|(_, first, _)| *first).min().unwrap_or(1);
    let ends = curves.iter().map(|(_, first, losses)| first + losses.len() as u32 - 1);
    let last = ends.max().unwrap_or(first).max(first + 1);
    let mut chart = ChartBuilder::on(&root)
        .caption("Fine-tuning the frozen model on the texts", (FONT, 44, &INK))
        .margin(30)
        .x_label_area_size(80)
        .y_label_area_size(100)
        .build_cartesian_2d(f64::from(first)..f64::from(last), low - 0.1..high + 0.1)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.12))
        .label_style((FONT, 28, &INK))
        .axis_desc_style((FONT, 32, &INK))
        .x_labels(12.min((last - first) as usize + 1))
        .x_desc("step")
        .y_desc("training loss (nats per token)")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .draw()
        .map_err(failed)?;
    for ((name, first, losses), colour) in curves.iter().zip(COLOURS) {
        let points = (*first..).map(f64::from).zip(losses.iter().copied());
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(3)))
            .map_err(failed)?
            .label(format!(" {name}"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 40, y)], colour.stroke_width(4)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(24)
        .legend_area_size(56)
        .label_font((FONT, 32, &INK))
        .background_style(WHITE.mix(0.85))
        .draw()
        .map_err(failed)?;
    root.present().map_err(failed)
}

/// What the routers of all modules do with a text.
pub struct Column {
    pub text: String,
    pub modules: Vec<Routing>,
}

/// A row for each module, from the first block down; a column for each expert of each text.
pub fn routing(path: &Path, texts: &[Column]) -> Result<(), Error> {
    const CELL: [i32; 2] = [44, 16];
    const EDGE: [i32; 2] = [150, 130];
    const GAP: i32 = 30;
    let modules = texts.first().map_or(&[][..], |text| &text.modules);
    let experts = modules.iter().map(|module| module.weights.len()).max().unwrap_or(0);
    let [rows, columns, experts] =
        [modules.len(), texts.len(), experts].map(|count| i32::try_from(count).unwrap_or(i32::MAX));
    let width = columns * (experts * CELL[0] + GAP);
    let size = ((EDGE[0] + width + 10) as u32, (EDGE[1] + rows * CELL[1] + 20) as u32);
    let root = BitMapBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let text = |words: &str, at: (i32, i32), size: u32| {
        root.draw(&Text::new(words.to_owned(), at, (FONT, size).into_font().color(&INK))).map_err(failed)
    };
    text("Mean weight of each expert, darker for more", (20, 20), 34)?;
    for (module, row) in modules.iter().zip(0..) {
        text(&short(&module.module), (12, EDGE[1] + row * CELL[1]), 15)?;
    }
    for (own, column) in texts.iter().zip(0..) {
        let left = EDGE[0] + column * (experts * CELL[0] + GAP);
        text(&own.text, (left, EDGE[1] - 60), 28)?;
        for expert in 0..experts {
            text(&format!("B{}", expert + 1), (left + expert * CELL[0] + 12, EDGE[1] - 24), 18)?;
        }
        for (module, row) in own.modules.iter().zip(0..) {
            for (weight, expert) in module.weights.iter().zip(0..) {
                let [x, y] = [left + expert * CELL[0], EDGE[1] + row * CELL[1]];
                // From white for none to blue for three times an equal share.
                let share = (f64::from(*weight) * f64::from(experts) / 3.0).clamp(0.0, 1.0);
                let cell = Rectangle::new(
                    [(x, y), (x + CELL[0] - 2, y + CELL[1] - 1)],
                    COLOURS[1].mix(share).filled(),
                );
                root.draw(&cell).map_err(failed)?;
            }
        }
    }
    root.present().map_err(failed)
}

/// A module's block and projection: `model.layers.3.mlp.gate_proj` is `3 gate_proj`.
fn short(module: &str) -> String {
    let own = module.strip_prefix("model.layers.").unwrap_or(module);
    let block = own.split('.').next().unwrap_or_default();
    format!("{block} {}", own.rsplit('.').next().unwrap_or_default())
}
