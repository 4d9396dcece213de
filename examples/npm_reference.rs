//! Writes what the npm package's test compares with: a few training steps, with the results of the float64 twin and their
//! bounds, as JSON. The options are written out twice, as Rust and as JavaScript have them.

use hydralora::twin::{self, Activations, AdamWStep, Approx, Extras, Moments, Random};
use hydralora::{AdamWHyper, Adapter, Config, Dropout, GroupHyper, Groups, Router, Sharing, Weighting};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

/// A training step of a layer: forward onto y, both backward operations, dx added, and AdamW.
struct Case {
    name: &'static str,
    config: Config,
    /// The same, as JavaScript writes it.
    javascript: Value,
    tokens: u32,
    /// Operations are prepared for more tokens than there are.
    capacity: u32,
    masked: bool,
    hyper: AdamWHyper,
    javascript_hyper: Value,
}

const LEARNING_RATE: f32 = 1e-2;
const RANDOM: Random = Random { seed: 0x1234_5678_9abc_def0, step: 3 };

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cases = cases().iter().map(reference).collect::<Result<Vec<_>, _>>()?;
    println!("{}", json!({ "cases": cases }));
    Ok(())
}

fn cases() -> [Case; 3] {
    [
        Case {
            name: "HydraLoRA",
            config: Config { d_in: 36, d_out: 44, rank: 4, experts: 3, scaling: 2.0, ..Config::DEFAULT },
            javascript: json!({ "dIn": 36, "dOut": 44, "rank": 4, "experts": 3, "scaling": 2 }),
            tokens: 50,
            capacity: 64,
            masked: false,
            hyper: AdamWHyper { max_norm: Some(0.5), ..AdamWHyper::default() },
            javascript_hyper: json!({ "maxNorm": 0.5 }),
        },
        Case {
            name: "a mixture of LoRAs, the best 2 of 4, with a mask",
            config: Config {
                d_in: 21,
                d_out: 30,
                rank: 2,
                experts: 4,
                scaling: 0.5,
                router: Router::Input,
                a: Sharing::Separate,
                weighting: Weighting::TopK { k: 2, renormalise: true },
                router_bias: true,
                temperature: 0.5,
                ..Config::DEFAULT
            },
            javascript: json!({
                "dIn": 21, "dOut": 30, "rank": 2, "experts": 4, "scaling": 0.5, "router": "input", "a": "separate",
                "weighting": { "topK": { "k": 2, "renormalise": true } }, "routerBias": true, "temperature": 0.5,
            }),
            tokens: 9,
            capacity: 300,
            masked: true,
            hyper: AdamWHyper::default(),
            javascript_hyper: json!({}),
        },
        Case {
            name: "the paper's router, with dropout of h and other rates for B",
            config: Config {
                d_in: 64,
                d_out: 20,
                rank: 8,
                experts: 2,
                router: Router::Latent,
                dropout: Some(Dropout { of: hydralora::DropoutOf::Latent, stream: 7, ..Dropout::new(0.25) }),
                ..Config::DEFAULT
            },
            javascript: json!({
                "dIn": 64, "dOut": 20, "rank": 8, "experts": 2, "router": "latent",
                "dropout": { "probability": 0.25, "of": "latent", "stream": 7 },
            }),
            tokens: 17,
            capacity: 17,
            masked: false,
            hyper: AdamWHyper {
                weight_decay: 0.1,
                groups: Groups { b: GroupHyper { rate: 16.0, weight_decay: Some(0.0) }, ..Groups::default() },
                ..AdamWHyper::default()
            },
            javascript_hyper: json!({ "weightDecay": 0.1, "groups": { "b": { "rate": 16, "weightDecay": 0 } } }),
        },
    ]
}

fn reference(case: &Case) -> Result<Value, hydralora::Error> {
    let Case { config, tokens, hyper, .. } = case;
    let layout = config.layout()?;
    let mut random = StdRng::seed_from_u64(1);
    let mut uniform =
        |len: u32| -> Vec<f32> { (0..len).map(|_| random.random_range(-1.0f32..1.0)).collect() };
    let x = uniform(tokens * config.d_in);
    let y = uniform(tokens * config.d_out);
    let g = uniform(tokens * config.d_out);
    let dx = uniform(tokens * config.d_in);
    let mask: Vec<f32> = (0..*tokens).map(|token| if token % 3 == 1 { 0.0 } else { 1.0 }).collect();
    let adapter = Adapter::initialise_random_heads(config, 42, 1.0)?;
    let packed = layout.pack(&adapter)?;

    let [exact_x, exact_y, exact_g, exact_dx] = [&x, &y, &g, &dx].map(|numbers| twin::exact(numbers));
    let mut parameters = twin::exact(&packed);
    let matrices = layout.unpack(&parameters)?;
    let extras = Extras {
        mask: case.masked.then_some(&mask),
        random: config.dropout.is_some().then_some(RANDOM),
        ..Extras::default()
    };
    let forward = twin::forward(config, &matrices, &exact_x, &extras, Some(&exact_y));
    let backward =
        twin::backward_input(config, &matrices, &forward.h, &forward.w, &exact_g, &extras, Some(&exact_dx));
    let activations = Activations {
        x: &exact_x,
        g: &exact_g,
        h: &forward.h,
        w: &forward.w,
        dh: &backward.dh,
        dl: &backward.dl,
    };
    let gradients = layout.pack(&twin::backward_params(config, &activations, &extras))?;
    let zeros = vec![Approx::default(); layout.len()];
    let mut moments = Moments { first: zeros.clone(), second: zeros };
    let step = AdamWStep { number: 1, learning_rate: LEARNING_RATE, gradient_scale: 1.0 };
    let groups: Vec<_> = (0..layout.len()).map(|element| layout.group(element)).collect();
    let norm = twin::adamw(hyper, &step, &groups, &mut parameters, &gradients, &mut moments);
    moments.first.extend(moments.second);

    let mut given = json!({ "x": x, "y": y, "g": g, "dx": dx, "parameters": packed });
    if case.masked {
        given["mask"] = json!(mask);
    }
    let mut expected = json!({
        "y": bounded(&forward.y),
        "dx": bounded(&backward.dx),
        "gradients": bounded(&gradients),
        "parameters": bounded(&parameters),
        "moments": bounded(&moments.first),
    });
    if let Some(norm) = norm {
        expected["status"] = bounded(&[norm]);
    }
    Ok(json!({
        "name": case.name,
        "config": case.javascript,
        "tokens": tokens,
        "capacity": case.capacity,
        "hyper": case.javascript_hyper,
        "learningRate": LEARNING_RATE,
        "random": { "seed": RANDOM.seed.to_string(), "step": RANDOM.step },
        "given": given,
        "expected": expected,
    }))
}

/// Values, and how far results may be from each.
fn bounded(numbers: &[Approx]) -> Value {
    let [values, bounds] = [|a: &Approx| a.value, |a: &Approx| a.bound]
        .map(|part| numbers.iter().map(part).collect::<Vec<f64>>());
    json!({ "values": values, "bounds": bounds })
}
