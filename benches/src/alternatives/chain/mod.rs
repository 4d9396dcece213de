//! The obvious alternative: the operations of the released HydraLoRA code, one after the other, each as a
//! simple dispatch with one thread per output. Like that code, it applies A anew for every expert, and keeps
//! what autograd would keep.

use bytemuck::{Pod, Zeroable};
use hydralora::device::Gpu;
use hydralora::kernel::BindingKind::{Read, Write};
use hydralora::{AdamWHyper, Adapter, Config, Error, Layout, wgpu};

use crate::recorder::{Checks, Dispatches, Recorder, fold};

/// `struct Dims` in the chain's shaders.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Dims {
    rows: u32,
    columns: u32,
    inner: u32,
    expert: u32,
    experts: u32,
    factor: f32,
}

/// The transposed factors of a matrix product, and whether it adds to its result.
#[derive(Clone, Copy, PartialEq)]
enum Product {
    /// A B^T
    ByTransposed,
    /// A B
    Plain { accumulate: bool },
    /// A^T B
    TransposedBy { accumulate: bool },
}

/// Records the chain's operations.
struct Operations<'a>(Recorder<'a>);

impl<'a> Operations<'a> {
    /// With wgpu's own checks, as in an application.
    fn new(gpu: &'a Gpu) -> Self {
        Self(Recorder::new(gpu, Checks::ALL))
    }

    fn dispatch(&mut self, wgsl: String, dims: Dims, buffers: [&wgpu::Buffer; 3], grid: [u32; 3]) {
        let [left, right, result] = buffers;
        let bindings = [(Read, left), (Read, right), (Write, result)];
        self.0.dispatch(wgsl, &[bytemuck::bytes_of(&dims)], &bindings, grid);
    }

    /// Dispatches a thread for each element of a rows x columns matrix.
    fn dispatch_matrix(&mut self, wgsl: String, dims: Dims, buffers: [&wgpu::Buffer; 3]) {
        let [y, z] = fold(dims.rows);
        self.dispatch(wgsl, dims, buffers, [dims.columns.div_ceil(64), y, z]);
    }

    /// A product of shape `[rows, columns, inner]`. `buffers` are A, B and the result.
    fn matmul(&mut self, product: Product, [rows, columns, inner]: [u32; 3], buffers: [&wgpu::Buffer; 3]) {
        let transpose_a = matches!(product, Product::TransposedBy { .. });
        let transpose_b = product == Product::ByTransposed;
        let accumulate = matches!(
            product,
            Product::Plain { accumulate: true } | Product::TransposedBy { accumulate: true }
        );
        let wgsl = format!(
            "const TRANSPOSE_A = {transpose_a};\nconst TRANSPOSE_B = {transpose_b};\n\
             const ACCUMULATE = {accumulate};\n{}",
            include_str!("matmul.wgsl")
        );
        let dims = Dims { rows, columns, inner, ..Dims::default() };
        self.dispatch_matrix(wgsl, dims, buffers);
    }

    /// `buffers` are `left`, `right` and `result` in the operation's text.
    fn elementwise(&mut self, operation: &str, dims: Dims, buffers: [&wgpu::Buffer; 3]) {
        let wgsl = include_str!("elementwise.wgsl").replace("OPERATION", operation);
        self.dispatch_matrix(wgsl, dims, buffers);
    }

    /// `operation` is the name of a function in rows.wgsl.
    fn rows(&mut self, operation: &str, dims: Dims, buffers: [&wgpu::Buffer; 3]) {
        let wgsl = include_str!("rows.wgsl").replace("OPERATION", operation);
        self.dispatch(wgsl, dims, buffers, [dims.rows.div_ceil(64), 1, 1]);
    }

    fn finish(&mut self) -> Dispatches {
        self.0.finish()
    }
}

/// The chain's router, if its layer has one, and its results.
struct Gate {
    /// experts x `d_in`
    router: wgpu::Buffer,
    /// tokens x experts
    logits: wgpu::Buffer,
    w: wgpu::Buffer,
    dw: wgpu::Buffer,
    dl: wgpu::Buffer,
}

/// The chain of one layer with the input router.
pub struct LayerChain {
    pub forward: Dispatches,
    pub backward: Dispatches,
    /// tokens x `d_out`
    pub y: wgpu::Buffer,
    /// tokens x `d_in`
    pub dx: wgpu::Buffer,
    /// rank x `d_in`
    pub da: wgpu::Buffer,
    /// experts x `d_in`, if the layer has a router
    pub drouter: Option<wgpu::Buffer>,
    /// `d_out` x rank, per expert
    pub db: Vec<wgpu::Buffer>,
}

impl LayerChain {
    pub fn new(
        gpu: &Gpu,
        config: &Config,
        layout: &Layout,
        tokens: u32,
        adapter: &Adapter,
        x: &wgpu::Buffer,
        g: &wgpu::Buffer,
    ) -> Result<Self, Error> {
        let Config { d_in, d_out, rank, experts, scaling, .. } = *config;
        let matrix = |rows: u32, columns: u32| gpu.zeroed("chain", rows as usize * columns as usize);
        let a = gpu.upload("A", &adapter.a)?;
        let b = adapter.b.iter().map(|b| gpu.upload("B", b)).collect::<Result<Vec<_>, _>>()?;
        let routed = layout.shrink().rows() > rank as usize;
        let gate = || -> Result<Gate, Error> {
            Ok(Gate {
                router: gpu.upload("W_g", &adapter.router)?,
                logits: matrix(tokens, experts)?,
                w: matrix(tokens, experts)?,
                dw: matrix(tokens, experts)?,
                dl: matrix(tokens, experts)?,
            })
        };
        let gate = routed.then(gate).transpose()?;

        let mut record = Operations::new(gpu);
        let y = matrix(tokens, d_out)?;
        let gate_dims = Dims { rows: tokens, columns: experts, ..Dims::default() };
        let out_dims =
            |expert| Dims { rows: tokens, columns: d_out, inner: 0, expert, experts, factor: scaling };
        if let Some(Gate { router, logits, w, .. }) = &gate {
            record.matmul(Product::ByTransposed, [tokens, experts, d_in], [x, router, logits]);
            record.rows("softmax", gate_dims, [logits, logits, w]);
        }
        record.elementwise("0.0", out_dims(0), [x, x, &y]);
        let (gated, scaled) = (matrix(tokens, d_out)?, matrix(tokens, d_out)?);
        let mut kept = Vec::new();
        for (expert, b) in (0..).zip(&b) {
            let (h, out) = (matrix(tokens, rank)?, matrix(tokens, d_out)?);
            record.matmul(Product::ByTransposed, [tokens, rank, d_in], [x, &a, &h]);
            record.matmul(Product::ByTransposed, [tokens, d_out, rank], [&h, b, &out]);
            let weighed = if let Some(Gate { w, .. }) = &gate {
                record.elementwise("left[at] * right[gate]", out_dims(expert), [&out, w, &gated]);
                &gated
            } else {
                &out
            };
            record.elementwise("left[at] * dims.factor", out_dims(expert), [weighed, weighed, &scaled]);
            record.elementwise("result[at] + left[at]", out_dims(expert), [&scaled, &scaled, &y]);
            kept.push((h, out));
        }
        let forward = record.finish();

        let (dx, da) = (matrix(tokens, d_in)?, matrix(rank, d_in)?);
        let (dscaled, dout) = (matrix(tokens, d_out)?, matrix(tokens, d_out)?);
        let mut db = Vec::new();
        for (expert, (b, (h, out))) in (0..).zip(b.iter().zip(&kept)) {
            let (db_i, dh) = (matrix(d_out, rank)?, matrix(tokens, rank)?);
            let accumulate = expert > 0;
            record.elementwise("left[at] * dims.factor", out_dims(expert), [g, g, &dscaled]);
            let dout = if let Some(Gate { w, dw, .. }) = &gate {
                record.rows("inner_product", out_dims(expert), [&dscaled, out, dw]);
                record.elementwise("left[at] * right[gate]", out_dims(expert), [&dscaled, w, &dout]);
                &dout
            } else {
                &dscaled
            };
            record.matmul(
                Product::TransposedBy { accumulate: false },
                [d_out, rank, tokens],
                [dout, h, &db_i],
            );
            record.matmul(Product::Plain { accumulate: false }, [tokens, rank, d_out], [dout, b, &dh]);
            record.matmul(Product::TransposedBy { accumulate }, [rank, d_in, tokens], [&dh, x, &da]);
            record.matmul(Product::Plain { accumulate }, [tokens, d_in, rank], [&dh, &a, &dx]);
            db.push(db_i);
        }
        let drouter = routed.then(|| matrix(experts, d_in)).transpose()?;
        if let (Some(Gate { router, w, dw, dl, .. }), Some(drouter)) = (&gate, &drouter) {
            record.rows("softmax_backward", gate_dims, [w, dw, dl]);
            record.matmul(
                Product::TransposedBy { accumulate: false },
                [experts, d_in, tokens],
                [dl, x, drouter],
            );
            record.matmul(Product::Plain { accumulate: true }, [tokens, d_in, experts], [dl, router, &dx]);
        }
        Ok(Self { forward, backward: record.finish(), y, dx, da, drouter, db })
    }

    /// The most iterations of a thread's loop in the chain.
    pub fn loop_iterations(config: &Config, tokens: u32) -> u64 {
        let Config { d_in, d_out, rank, experts, .. } = *config;
        u64::from(d_in.max(d_out).max(tokens).max(rank)).max(3 * u64::from(experts))
    }
}

/// AdamW like PyTorch's plain loop: a dispatch for each operation on a parameter.
pub fn adamw(gpu: &Gpu, elements: u32, hyper: &AdamWHyper, learning_rate: f32) -> Result<Dispatches, Error> {
    let columns = 4096;
    assert_eq!(elements % columns, 0, "the bench's shapes are multiples of {columns}");
    let buffer = |label| gpu.upload(label, &vec![0.5; elements as usize]);
    let (parameters, gradients, m, v, denominator) =
        (buffer("parameters")?, buffer("gradients")?, buffer("m")?, buffer("v")?, buffer("denominator")?);
    let mut record = Operations::new(gpu);
    let mut apply = |operation: &str, factor: f32, buffers| {
        let dims = Dims { rows: elements / columns, columns, factor, ..Dims::default() };
        record.elementwise(operation, dims, buffers);
    };
    let unused = &gradients;
    apply(
        "result[at] * dims.factor",
        1.0 - learning_rate * hyper.weight_decay,
        [unused, unused, &parameters],
    );
    apply("result[at] + dims.factor * (left[at] - result[at])", 1.0 - hyper.beta1, [&gradients, unused, &m]);
    apply("result[at] * dims.factor", hyper.beta2, [unused, unused, &v]);
    apply("result[at] + dims.factor * left[at] * right[at]", 1.0 - hyper.beta2, [&gradients, &gradients, &v]);
    apply("sqrt(left[at])", 0.0, [&v, unused, &denominator]);
    apply("result[at] * dims.factor", (1.0 - hyper.beta2).sqrt().recip(), [unused, unused, &denominator]);
    apply("result[at] + dims.factor", hyper.epsilon, [unused, unused, &denominator]);
    let step = -learning_rate / (1.0 - hyper.beta1);
    apply("result[at] + dims.factor * left[at] / right[at]", step, [&m, &denominator, &parameters]);
    Ok(record.finish())
}
