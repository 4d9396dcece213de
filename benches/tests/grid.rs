//! Tests of the shapes that the benches measure, and of their text form.

use hydralora_benches::grid::{self, Shape};

#[test]
fn a_shape_is_five_numbers_and_nothing_else() {
    let shape = Shape { tokens: 33, d_in: 4097, d_out: 4099, rank: 7, experts: 5 };
    assert_eq!("33,4097,4099,7,5".parse(), Ok(shape));
    assert_eq!(" 33, 4097,4099 ,7,5 ".parse(), Ok(shape));
    let bad = ["", "33", "33,4097,4099,7", "33,4097,4099,7,5,6", "33,4097,4099,7,5,x", "33,x,4097,4099,7,5"];
    for text in bad.into_iter().chain(["33,4097,4099,7,-5", "33,4097,4099,7,4294967296", "33,,4099,7,5"]) {
        let error = text.parse::<Shape>().expect_err(text);
        assert!(error.contains(&format!("{text:?}")) && error.contains("write TOKENS,"), "{error}");
    }
}

#[test]
fn both_grids_have_shapes_of_each_kind() {
    for shapes in [grid::small(), grid::full()] {
        let has = |kind: &dyn Fn(&Shape) -> bool| shapes.iter().any(kind);
        assert!(has(&|shape| *shape == grid::REFERENCE));
        assert!(has(&|shape| !shape.d_in.is_multiple_of(4) && !shape.d_out.is_multiple_of(4)));
        assert!(has(&|shape| shape.tokens == 1));
        assert!(has(&|shape| shape.experts > 1 && !shape.experts.is_multiple_of(2)));
        for plain in [16, 64] {
            assert!(has(&|shape| shape.experts == 1 && shape.rank == plain), "plain LoRA at rank {plain}");
        }
        let llama_13b = |shape: &Shape| [shape.d_in, shape.d_out, shape.rank, shape.experts];
        assert!(has(&|shape| llama_13b(shape) == [5120, 13824, 16, 6]));
        let mut distinct = shapes.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), shapes.len(), "no shape is measured twice");
    }
}
