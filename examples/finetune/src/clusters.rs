//! How many experts the texts suggest, as the HydraLoRA paper chooses it: k-means on features of pieces of
//! them, and the elbow of what remains unexplained.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::corpus::Text;

/// Bytes of a piece of text.
const PIECE: usize = 1024;
/// Pieces of each text, at equal distances.
const PIECES: usize = 60;
/// Features of a piece: the three bytes at each place, hashed.
const FEATURES: usize = 1024;
/// The largest number of clusters.
const MOST_CLUSTERS: usize = 10;
/// Runs for each number of clusters, of which the best counts: each ends in some local optimum.
const RUNS: usize = 8;
/// The most rounds of a run.
const ROUNDS: usize = 50;

/// What clusters leave unexplained.
pub struct Elbow {
    /// The mean squared distance of the pieces to their clusters' centres, for 1 cluster, 2, and so on.
    pub distances: Vec<f64>,
    /// The number of clusters at the elbow.
    pub clusters: usize,
}

/// Clusters the training parts of the texts.
pub fn elbow(texts: &[Text], seed: u64) -> Elbow {
    let pieces: Vec<&[u8]> = texts.iter().flat_map(|text| text.pieces(PIECE, PIECES)).collect();
    let points = features(&pieces);
    elbow_of_points(&points, MOST_CLUSTERS, seed)
}

fn elbow_of_points(points: &[Vec<f64>], most: usize, seed: u64) -> Elbow {
    let random = &mut StdRng::seed_from_u64(seed);
    let distances: Vec<f64> = (1..=most.min(points.len()))
        .map(|clusters| (0..RUNS).map(|_| k_means(points, clusters, random)).fold(f64::INFINITY, f64::min))
        .collect();
    Elbow { clusters: elbow_of(&distances), distances }
}

/// The number whose distance lies furthest below the straight line from the first to the last.
fn elbow_of(distances: &[f64]) -> usize {
    let last = distances.len() - 1;
    let below = |at: usize| {
        let share = at as f64 / last.max(1) as f64;
        distances[0] + share * (distances[last] - distances[0]) - distances[at]
    };
    1 + (0..=last).max_by(|&a, &b| below(a).total_cmp(&below(b))).unwrap_or(0)
}

/// TF-IDF of hashed trigrams of bytes, each piece's of length 1.
fn features(pieces: &[&[u8]]) -> Vec<Vec<f64>> {
    let count = |piece: &&[u8]| {
        let mut counts = vec![0.0; FEATURES];
        for trigram in piece.windows(3) {
            let number = trigram.iter().fold(0u32, |number, &byte| (number << 8) | u32::from(byte));
            counts[(number.wrapping_mul(0x9e37_79b1) >> 16) as usize % FEATURES] += 1.0;
        }
        counts
    };
    let mut points: Vec<Vec<f64>> = pieces.iter().map(count).collect();
    for feature in 0..FEATURES {
        let containing = points.iter().filter(|point| point[feature] > 0.0).count();
        let rarity = ((1 + points.len()) as f64 / (1 + containing) as f64).ln();
        for point in &mut points {
            point[feature] *= rarity;
        }
    }
    for point in &mut points {
        let length = point.iter().map(|number| number * number).sum::<f64>().sqrt();
        // A piece in which nothing is rare stays at the origin.
        for number in point {
            *number /= length.max(f64::MIN_POSITIVE);
        }
    }
    points
}

/// One run of k-means from a start by k-means++. Returns the mean squared distance to the nearest centre.
fn k_means(points: &[Vec<f64>], clusters: usize, random: &mut StdRng) -> f64 {
    let mut centres = vec![points[random.random_range(0..points.len())].clone()];
    while centres.len() < clusters {
        // The next centre is drawn with a probability that grows with its squared distance.
        let distances: Vec<f64> = points.iter().map(|point| nearest(point, &centres).1).collect();
        let mut at = random.random::<f64>() * distances.iter().sum::<f64>();
        let drawn = distances.iter().position(|distance| {
            at -= distance;
            at < 0.0
        });
        centres.push(points[drawn.unwrap_or(0)].clone());
    }
    let mut owners = Vec::new();
    for _ in 0..ROUNDS {
        let nearest: Vec<usize> = points.iter().map(|point| nearest(point, &centres).0).collect();
        if nearest == owners {
            break;
        }
        owners = nearest;
        for (cluster, centre) in centres.iter_mut().enumerate() {
            let members = || points.iter().zip(&owners).filter(|&(_, &owner)| owner == cluster);
            // A centre that nobody is near stays where it is.
            let count = members().count().max(1) as f64;
            if members().next().is_some() {
                centre.fill(0.0);
            }
            for (point, _) in members() {
                centre.iter_mut().zip(point).for_each(|(sum, number)| *sum += number / count);
            }
        }
    }
    points.iter().map(|point| nearest(point, &centres).1).sum::<f64>() / points.len() as f64
}

/// The nearest centre, and its squared distance.
fn nearest(point: &[f64], centres: &[Vec<f64>]) -> (usize, f64) {
    let distance = |centre: &[f64]| point.iter().zip(centre).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    let distances = centres.iter().map(|centre| distance(centre)).enumerate();
    distances.min_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap_or((0, 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_elbow_is_the_number_of_separate_groups() {
        // Three groups of points around the corners of a triangle.
        let point = |group: usize, at: usize| {
            (0..3).map(|axis| f64::from(u8::from(axis == group)) + 0.01 * ((at + axis) % 5) as f64).collect()
        };
        let points: Vec<Vec<f64>> = (0..60).map(|at| point(at % 3, at / 3)).collect();
        let Elbow { distances, clusters } = elbow_of_points(&points, 8, 1);
        assert!(distances.is_sorted_by(|fewer, more| fewer > more), "{distances:?}");
        assert_eq!(clusters, 3, "{distances:?}");
    }

    #[test]
    fn one_distance_is_its_own_elbow() {
        assert_eq!(elbow_of(&[0.5]), 1);
    }
}
