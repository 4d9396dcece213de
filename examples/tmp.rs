use hydralora::*;
fn main() {
    let gpu = pollster::block_on(device::Gpu::from_env()).unwrap();
    let kernels = Kernels::new(&gpu.device, &gpu.queue);
    let config = Config { d_in: 8, d_out: 8, rank: 265, experts: 192, scaling: 2.0, ..Config::default() };
    let op = Operation::Forward(ForwardOptions::default());
    let p = Planner::new(kernels.profile().clone());
    let r = p.plan(&op, &config, 228).unwrap();
    println!("{:?}", r.choice);
    for s in &r.steps {
        println!("{:?}", s.grid);
        println!("{}", s.shader.source().wgsl.lines().take(40).collect::<Vec<_>>().join("\n"));
    }
    for most in [1u64, 20000, 30000, 40000, 50000, 55000, 60000] {
        let mut profile = kernels.profile().clone();
        profile.max_loop_iterations = most;
        let p = Planner::new(profile);
        match p.plan_as(r.choice.unwrap(), &op, &config, 228) {
            Ok(r) => println!("{most} ok {:?}", r.choice),
            Err(e) => println!("{most} {e}"),
        }
    }
}
