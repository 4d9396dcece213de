// Put behind access/f16.wgsl. The device rounds to either neighbour.

fn set_group_TENSOR(at: u32, group: vec4<f32>) {
    TENSOR[at] = vec2<u32>(pack2x16float(group.xy), pack2x16float(group.zw));
}
