//! The report that is printed at the end.

use std::time::Duration;

use hydralora_finetune::base::ADAPTED;
use hydralora_finetune::corpus::Text;
use hydralora_finetune::evaluate::{Score, mean_bits};

/// A line of the table.
pub struct Entry<'a> {
    pub name: &'a str,
    pub parameters: u64,
    pub time: Option<Duration>,
    pub scores: &'a [Score],
}

/// A table of held-out bits per byte for each text, and their mean.
pub fn table(texts: &[Text], entries: &[Entry<'_>]) -> String {
    let mut rows = vec![vec![String::new(), "parameters".to_owned(), "training".to_owned()]];
    rows[0].extend(texts.iter().map(|text| text.name.clone()));
    rows[0].push("mean".to_owned());
    for Entry { name, parameters, time, scores } in entries {
        let time = time.map_or("-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
        let mut row = vec![(*name).to_owned(), thousands(*parameters), time];
        row.extend(scores.iter().map(|score| format!("{:.3}", score.bits_per_byte)));
        row.push(format!("{:.3}", mean_bits(scores)));
        rows.push(row);
    }
    align(&rows)
}

/// Pads the cells of lines to columns: the first column is aligned left, the others right.
pub fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(at, (cell, &width))| {
                    if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        format!("  {}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Says in words which of the two is better.
pub fn verdict(lora: &Entry<'_>, hydra: &Entry<'_>) -> String {
    let gain = mean_bits(lora.scores) - mean_bits(hydra.scores);
    let (better, worse) = if gain >= 0.0 { (hydra, lora) } else { (lora, hydra) };
    if gain.abs() < 0.0005 {
        return format!("{} and {} are level on the mean", hydra.name, lora.name);
    }
    format!(
        "{} beats {} by {:.3} bits per byte on the mean, with {:.2} times its parameters\n\
         (one seed: differences under about 0.03 mean little)",
        better.name,
        worse.name,
        gain.abs(),
        better.parameters as f64 / worse.parameters as f64
    )
}

/// Says how much the texts' mean gates differ, in a line for each layer.
pub fn routing(texts: &[Text], scores: &[Score]) -> Vec<String> {
    let line = |(layer, name): (usize, &&str)| match widest_gap(texts, scores, layer) {
        Some(gap) => format!("{name}: texts differ most in {gap}"),
        None => format!("{name}: the texts' mean gates do not differ"),
    };
    ADAPTED.iter().enumerate().map(line).collect()
}

/// The expert whose mean gate differs most between two texts.
fn widest_gap(texts: &[Text], scores: &[Score], layer: usize) -> Option<String> {
    let experts = scores.first()?.gates[layer].len();
    let gap = |expert: usize| {
        let gates = || texts.iter().zip(scores).map(|(text, score)| (score.gates[layer][expert], &text.name));
        let (low, low_text) = gates().min_by(|a, b| a.0.total_cmp(&b.0))?;
        let (high, high_text) = gates().max_by(|a, b| a.0.total_cmp(&b.0))?;
        let words = format!("expert {}: {low:.2} on {low_text}, {high:.2} on {high_text}", expert + 1);
        (high > low).then_some((high - low, words))
    };
    (0..experts).filter_map(gap).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, words)| words)
}

/// Formats 45056 as 45,056.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
