//! The names of tensors in a checkpoint, as the programs that write them make them, and of modules.

use super::error::CheckpointError;
use super::settings::Method;

/// What all names begin with that PEFT wraps around a model, and what MoE-PEFT puts in front.
const WRAPPERS: [[&str; 2]; 3] =
    [["base_model.model.", ""], ["loramoe.layers.", "model.layers."], ["mola.layers.", "model.layers."]];

/// How the name of `MoLA`'s router ends.
pub(super) const MOLA_ROUTER: &str = ".router.router.weight";

/// Which tensor of a module a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    A(Option<u32>),
    B(Option<u32>),
    Router,
    /// Lily's B: those of all experts below one another, each transposed.
    Stack,
}

/// The module and the part that a tensor's name means.
///
/// | program | A, B and the router of `M` |
/// |---|---|
/// | PEFT's LoRA | `M.lora_A.weight`, `M.lora_B.weight` |
/// | HydraLoRA, LoRAMoE | `M.lora_A.weight` or `M.lora_A0.weight`, `M.lora_B0.weight`, `M.lora_route.weight` |
/// | MoE-PEFT | `M.experts.0.lora_A.weight`, `M.experts.0.lora_B.weight`, `M.moe_gate.weight` |
/// | MoLA | `M.lora_A.default_0.weight`, `M.lora_B.default_0.weight`, `M.router.router.weight` |
/// | PEFT's Lily | `M.lily_A.weight`, `M.lily_B.weight`, `M.lily_router.weight` |
pub(super) fn parse(key: &str, method: Method) -> Result<(String, Part), CheckpointError> {
    let unexpected = || CheckpointError::Tensor {
        module: key.to_owned(),
        key: key.to_owned(),
        expected: "A, B or the router of a module, such as `M.lora_A.weight`".to_owned(),
        found: "another tensor".to_owned(),
    };
    let Some(rest) = key.strip_suffix(".weight") else {
        // A LoRA of another kind of module.
        let other = key.rsplit_once(".lora_").ok_or_else(unexpected)?;
        return Err(CheckpointError::Option {
            option: format!("lora_{}", other.1),
            value: format!("a tensor of `{}`", module_of(other.0)),
        });
    };
    for (ending, part) in [
        (".moe_gate", Part::Router),
        (".router.router", Part::Router),
        (".lily_router", Part::Router),
        (".lily_A", Part::A(None)),
        (".lily_B", Part::Stack),
    ] {
        if let Some(module) = rest.strip_suffix(ending) {
            return Ok((module_of(module), part));
        }
    }
    let (module, part) = rest.rsplit_once(".lora_").ok_or_else(unexpected)?;
    let number = |digits: &str| digits.parse::<u32>().map_err(|_| unexpected());
    // Where a number stands, if anywhere: before `lora_A`, or behind it. Other programs' modules may be called so.
    let numbered = matches!(method, Method::LoraMoe | Method::Mola);
    let (module, before) = match module.rsplit_once(".experts.").filter(|_| numbered) {
        Some((module, digits)) => (module, Some(number(digits)?)),
        None => (module, None),
    };
    let part = match part.strip_suffix(".default").unwrap_or(part) {
        "route" => return Ok((module_of(module), Part::Router)),
        other => other,
    };
    let (letter, behind) = part.split_at_checked(1).ok_or_else(unexpected)?;
    let behind = match behind.strip_prefix(".default_").unwrap_or(behind) {
        "" => None,
        digits => Some(number(digits)?),
    };
    let number = match (before, behind) {
        (Some(_), Some(_)) => return Err(unexpected()),
        (before, behind) => before.or(behind),
    };
    let part = match letter {
        "A" => Part::A(number),
        "B" => Part::B(number),
        _ => return Err(unexpected()),
    };
    Ok((module_of(module), part))
}

/// The module's name in the model.
fn module_of(name: &str) -> String {
    for [wrapper, model] in WRAPPERS {
        if let Some(rest) = name.strip_prefix(wrapper) {
            return format!("{model}{rest}");
        }
    }
    name.to_owned()
}

/// The names that Hugging Face's `LLaMA` and GGUF files give the projections of a block.
const PROJECTIONS: [[&str; 2]; 7] = [
    ["self_attn.q_proj", "attn_q"],
    ["self_attn.k_proj", "attn_k"],
    ["self_attn.v_proj", "attn_v"],
    ["self_attn.o_proj", "attn_output"],
    ["mlp.gate_proj", "ffn_gate"],
    ["mlp.up_proj", "ffn_up"],
    ["mlp.down_proj", "ffn_down"],
];

/// The name that a GGUF file has for a projection of a `LLaMA` model, and the name that Hugging Face has:
/// `model.layers.3.mlp.gate_proj` is `blk.3.ffn_gate`. `None` for any other name.
///
/// GGUF files of `LLaMA` models have the rows of `attn_q` and `attn_k` in another order: element i of a head's first half,
/// then element i of its second. So the rows of B of an adapter of these two have to change their order too.
///
/// ```
/// use hydralora::checkpoint::{gguf_name, hugging_face_name};
///
/// assert_eq!(gguf_name("model.layers.3.mlp.gate_proj").as_deref(), Some("blk.3.ffn_gate"));
/// assert_eq!(hugging_face_name("blk.3.ffn_gate").as_deref(), Some("model.layers.3.mlp.gate_proj"));
/// assert_eq!(gguf_name("lm_head"), None);
/// ```
#[must_use]
pub fn gguf_name(module: &str) -> Option<String> {
    let (layer, rest) = module.strip_prefix("model.layers.")?.split_once('.')?;
    let [_, name] = PROJECTIONS.into_iter().find(|[own, _]| *own == rest)?;
    Some(format!("blk.{}.{name}", layer.parse::<u32>().ok()?))
}

/// The other way from [`gguf_name`].
#[must_use]
pub fn hugging_face_name(module: &str) -> Option<String> {
    let (layer, rest) = module.strip_prefix("blk.")?.split_once('.')?;
    let [name, _] = PROJECTIONS.into_iter().find(|[_, own]| *own == rest)?;
    Some(format!("model.layers.{}.{name}", layer.parse::<u32>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Method, Part, gguf_name, hugging_face_name, parse};

    #[test]
    fn names_mean_what_their_writers_mean() {
        let module = "model.layers.3.mlp.up_proj";
        for (key, part) in [
            ("base_model.model.model.layers.3.mlp.up_proj.lora_A.weight", Part::A(None)),
            ("base_model.model.model.layers.3.mlp.up_proj.lora_A.default.weight", Part::A(None)),
            ("model.layers.3.mlp.up_proj.lora_B12.weight", Part::B(Some(12))),
            ("model.layers.3.mlp.up_proj.lora_route.weight", Part::Router),
            ("model.layers.3.mlp.up_proj.lora_route.default.weight", Part::Router),
            ("loramoe.layers.3.mlp.up_proj.experts.2.lora_A.weight", Part::A(Some(2))),
            ("mola.layers.3.mlp.up_proj.moe_gate.weight", Part::Router),
            ("base_model.model.model.layers.3.mlp.up_proj.lora_B.default_1.weight", Part::B(Some(1))),
            ("base_model.model.model.layers.3.mlp.up_proj.router.router.weight", Part::Router),
            ("base_model.model.model.layers.3.mlp.up_proj.lily_A.weight", Part::A(None)),
            ("base_model.model.model.layers.3.mlp.up_proj.lily_B.weight", Part::Stack),
            ("base_model.model.model.layers.3.mlp.up_proj.lily_router.weight", Part::Router),
        ] {
            let method = if key.contains(".experts.") { Method::LoraMoe } else { Method::Lora };
            assert_eq!(parse(key, method).expect(key), (module.to_owned(), part), "{key}");
        }
        for key in
            ["m.lora_A", "m.lora_C.weight", "m.lora_.weight", "m.weight", "m.lora_Ax.weight", "lora_A.weight"]
        {
            assert!(parse(key, Method::Lora).is_err(), "{key}");
        }
        assert!(parse("m.experts.1.lora_A2.weight", Method::Mola).is_err());
        // A mixture of the model's own, whose matrices have adapters.
        let own = "block_sparse_moe.experts.0.w1";
        let parsed = parse(&format!("{own}.lora_A.weight"), Method::Lora).expect(own);
        assert_eq!(parsed, (own.to_owned(), Part::A(None)));
    }

    #[test]
    fn projections_have_two_names() {
        for name in ["blk.0.attn_q", "blk.31.attn_output", "blk.7.ffn_down"] {
            let other = hugging_face_name(name).expect("a projection");
            assert_eq!(gguf_name(&other).as_deref(), Some(name));
        }
        for name in ["blk.x.attn_q", "blk.0.attn_norm", "model.layers.0.mlp.up_proj", "blk.0"] {
            assert_eq!(hugging_face_name(name), None, "{name}");
        }
        assert_eq!(gguf_name("model.layers.-1.mlp.up_proj"), None);
    }
}
