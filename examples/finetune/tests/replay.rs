//! Training twice with one seed gives the same bits, with every variant and option of the demo, and with any plan.

use hydralora::device::Gpu;
use hydralora::{Config, DeviceProfile, Dropout, Element, Kernels, Sharing, Weighting};
use hydralora_finetune::adapters;
use hydralora_finetune::corpus::Text;
use hydralora_finetune::runtime::Runtime;
use hydralora_finetune::train::{Trainer, Training};

const BASE: &[u8] = include_bytes!("../data/base.safetensors");
const PROSE: &[u8] = include_bytes!("../data/corpora/prose.txt");
const CODE: &[u8] = include_bytes!("../data/corpora/code.c");

const STEPS: u32 = 3;

async fn trained(runtime: &Runtime, texts: &[Text], config: Config, balance: f32) -> Vec<u8> {
    let training = Training { steps: STEPS, seed: 5, balance };
    let mut trainer = Trainer::new(runtime, config, texts, training).await.expect("a valid run");
    for _ in 0..STEPS {
        trainer.advance().expect("the device runs");
    }
    assert!(trainer.look().await.expect("a finite loss") > 0.0);
    trainer.check().await.expect("no step is skipped");
    trainer.adapters.to_bytes(&runtime.gpu).await.expect("adapters that can be saved")
}

#[test]
fn equal_seeds_give_equal_adapters() {
    let gpu = pollster::block_on(Gpu::from_env()).expect("a GPU adapter");
    let texts = [("prose", PROSE), ("code", CODE)]
        .map(|(name, bytes)| Text::new(name, bytes.to_vec()).expect("a text that is long enough"));
    let hydralora = adapters::config(4, 3);
    let top = |k| Weighting::TopK { k, renormalise: true };
    let dropout = Some(Dropout::new(0.3));
    let variants = [
        (hydralora, 0.0),
        (Config { a: Sharing::Separate, dropout, ..hydralora }, 0.1),
        (Config { a: Sharing::Separate, weighting: top(2), ..hydralora }, 0.1),
        (Config { weighting: top(1), dropout, ..hydralora }, 0.0),
    ];
    let own = Kernels::new(&gpu.device, &gpu.queue).profile().clone();
    let wide = DeviceProfile::new(gpu.device.limits(), 256);
    for (profile, element) in [(own, Element::F32), (wide, Element::Bf16)] {
        let mut runtime = Runtime::new(gpu.clone(), BASE, element).expect("the demo's base");
        runtime.kernels = Kernels::with_profile(&gpu.device, &gpu.queue, profile);
        let mut before = Vec::new();
        for (config, balance) in variants {
            let run = || gpu.block_on(trained(&runtime, &texts, config, balance)).expect("the device runs");
            let first = run();
            assert!(first == run(), "{config} with a balance of {balance} on weights in {element} differs");
            assert!(!before.contains(&first), "{config}: its options change nothing");
            before.push(first);
        }
    }
}
