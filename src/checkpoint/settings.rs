//! `adapter_config.json`: what a layer's arithmetic depends on, and what would change it.

use serde_json::{Map, Value};

use super::error::CheckpointError;

/// What the loaders of adapters know of them.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) method: Method,
    rank: u32,
    alpha: f64,
    /// Whether the scaling is alpha / sqrt(rank).
    root: bool,
    /// The number of experts, if it is said.
    pub(super) experts: Option<u32>,
    /// The number of experts of a token, if it is said.
    pub(super) top_k: Option<u32>,
    ranks: Vec<(String, u32)>,
    alphas: Vec<(String, f64)>,
    /// Whether the base's weights are stored transposed, which an adapter's are not.
    pub(super) fan_in_fan_out: bool,
    /// The probability of dropout in training.
    pub(super) dropout: f32,
}

/// What the file says that the adapter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// PEFT's `LoRA`, and what is built on it and does not change the name: `HydraLoRA`, `LoRAMoE`, `MoLA`.
    Lora,
    /// MoE-PEFT's `LoRAMoE`: experts in some modules, plain `LoRA` in others.
    LoraMoe,
    /// MoE-PEFT's `MoLA`: the same with the best experts of each token.
    Mola,
    /// PEFT's Lily: a latent router, whose gates are averaged over the batch.
    Lily,
}

impl Method {
    const ALL: [(&str, Self); 4] =
        [("LORA", Self::Lora), ("LORAMOE", Self::LoraMoe), ("MOLA", Self::Mola), ("LILY", Self::Lily)];
}

/// Options that change nothing about a loaded layer, whatever they are.
const HARMLESS: [&str; 36] = [
    "auto_mapping",
    "base_model_name_or_path",
    "blc_alpha",
    "blc_weight",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "init_weights",
    "name",
    "router_aux_loss_coef",
    "router_init_range",
    "router_loss",
    "task_name",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "merge_weights",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    // Read elsewhere.
    "alpha_pattern",
    "fan_in_fan_out",
    "lora_alpha",
    "lora_dropout",
    "r",
    "rank_pattern",
    "top_k",
    "use_rslora",
];

/// Ways to initialise that leave the base's weights as they are. Others subtract the fresh adapter from them.
const INITIALISATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

impl Settings {
    pub(super) fn parse(text: &[u8]) -> Result<Self, CheckpointError> {
        let settings: Map<String, Value> = serde_json::from_slice(text).map_err(|error| {
            wrong("the whole", "an object with the adapter's options", &error.to_string())
        })?;
        let said = settings.get("peft_type").and_then(Value::as_str);
        let method = Method::ALL.into_iter().find(|(name, _)| Some(*name) == said);
        // Older files do not say it.
        let method = method.map_or(Method::Lora, |(_, method)| method);
        // First what explains the others.
        let first = settings.iter().filter(|(option, _)| *option == "peft_type");
        for (option, value) in first.chain(&settings) {
            refuse(option, value, method)?;
        }
        let get = |option: &str| settings.get(option).filter(|value| !value.is_null());
        let number = |option: &'static str| match get(option).map(|value| (value, value.as_f64())) {
            Some((_, Some(number))) if number.is_finite() => Ok(Some(number)),
            Some((value, _)) => Err(wrong(option, "a finite number", &value.to_string())),
            None => Ok(None),
        };
        let needed =
            |option: &'static str| number(option)?.ok_or_else(|| wrong(option, "a finite number", "missing"));
        let rank = needed("r").and_then(|number| count("r", number))?;
        let whole = |option: &'static str| number(option)?.map(|number| count(option, number)).transpose();
        let experts = match method {
            Method::Lora => whole("lora_nums")?,
            Method::LoraMoe | Method::Mola => {
                Some(whole("num_experts")?.ok_or_else(|| missing("num_experts"))?)
            }
            Method::Lily => Some(whole("num_B")?.ok_or_else(|| missing("num_B"))?),
        };
        let top_k = whole("top_k")?;
        if method == Method::Mola && top_k.is_none() {
            return Err(missing("top_k"));
        }
        let pattern = |option: &'static str| -> Result<Vec<(String, f64)>, CheckpointError> {
            let Some(value) = get(option) else { return Ok(Vec::new()) };
            let expected = "an object of module names and numbers";
            let entries = value.as_object().ok_or_else(|| wrong(option, expected, &value.to_string()))?;
            let entry = |(name, value): (&String, &Value)| {
                let number = value.as_f64().ok_or_else(|| wrong(option, expected, &value.to_string()))?;
                let literal = |c: char| c.is_alphanumeric() || "._-".contains(c);
                if !name.chars().all(literal) {
                    return Err(wrong(option, "names, not regular expressions", name));
                }
                Ok((name.clone(), number))
            };
            entries.iter().map(entry).collect()
        };
        let ranks = pattern("rank_pattern")?.into_iter();
        let ranks = ranks.map(|(name, rank)| Ok((name, count("rank_pattern", rank)?)));
        // Lily's scaling is what its rank would divide.
        let alpha = match method {
            Method::Lily => needed("scaling")? * f64::from(rank),
            Method::Lora | Method::LoraMoe | Method::Mola => needed("lora_alpha")?,
        };
        Ok(Self {
            method,
            rank,
            alpha,
            root: is_set(get("use_rslora")),
            experts,
            top_k,
            ranks: ranks.collect::<Result<_, CheckpointError>>()?,
            alphas: pattern("alpha_pattern")?,
            fan_in_fan_out: is_set(get("fan_in_fan_out")),
            dropout: number("lora_dropout")?.unwrap_or(0.0) as f32,
        })
    }

    /// A module's rank.
    pub(super) fn rank(&self, module: &str) -> u32 {
        of_module(&self.ranks, module).unwrap_or(self.rank)
    }

    /// A module's scaling.
    pub(super) fn scaling(&self, module: &str) -> f32 {
        let alpha = of_module(&self.alphas, module).unwrap_or(self.alpha);
        let rank = f64::from(self.rank(module));
        (alpha / if self.root { rank.sqrt() } else { rank }) as f32
    }
}

/// The entry of a pattern whose name is the module's, or else the end of it.
fn of_module<T: Copy>(entries: &[(String, T)], module: &str) -> Option<T> {
    let ends = |name: &str| module.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
    let whole = entries.iter().find(|(name, _)| name == module);
    whole.or_else(|| entries.iter().find(|(name, _)| ends(name))).map(|&(_, value)| value)
}

/// Refuses options that change what a layer computes, and those that nobody here knows.
fn refuse(option: &str, value: &Value, method: Method) -> Result<(), CheckpointError> {
    let allowed = match option {
        _ if HARMLESS.contains(&option) || !is_set(Some(value)) => true,
        "peft_type" => Method::ALL.iter().any(|(name, _)| value == *name),
        "routing_strategy" => value == "loramoe" || value == "mola",
        "num_B" | "scaling" | "stride_A" => method == Method::Lily,
        "num_experts" => matches!(method, Method::LoraMoe | Method::Mola),
        "lora_nums" => method == Method::Lora,
        "bias" => value == "none",
        "init_lora_weights" => match value {
            Value::String(name) => INITIALISATIONS.contains(&name.as_str()),
            other => other.is_boolean(),
        },
        _ => false,
    };
    if allowed {
        return Ok(());
    }
    Err(CheckpointError::Option { option: option.to_owned(), value: value.to_string() })
}

/// Whether an option has a value that says anything.
fn is_set(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(items)) => items.iter().any(|item| is_set(Some(item))),
        Some(Value::Object(entries)) => !entries.is_empty(),
        Some(_) => true,
    }
}

fn missing(option: &str) -> CheckpointError {
    wrong(option, "a whole number of at least 1", "missing")
}

fn count(option: &str, number: f64) -> Result<u32, CheckpointError> {
    if number.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&number) {
        return Ok(number as u32);
    }
    Err(wrong(option, "a whole number of at least 1", &number.to_string()))
}

fn wrong(option: &str, expected: &'static str, found: &str) -> CheckpointError {
    CheckpointError::Setting { option: option.to_owned(), expected, found: found.to_owned() }
}
