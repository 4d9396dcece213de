/** The options, which are plain data. What has a default may be left out. */

/**
 * The type of a tensor's elements. Half precision needs no feature of the device, only rows whose length is a multiple of
 * four elements; arithmetic is f32.
 *
 * @typedef {"f32" | "f16" | "bf16"} Element
 */

/**
 * A tensor: a whole buffer as f32, or a range of one. `offset` and `size` are in bytes; the rest of the buffer is taken by
 * default.
 *
 * @typedef {GPUBuffer | { buffer: GPUBuffer, offset?: number, size?: number, element?: Element }} Tensor
 */

/**
 * A tensor as an operation needs it: row-major, with room for its capacity. Numbers are elements, `bytes` bytes.
 *
 * @typedef {object} TensorShape
 * @property {string} name
 * @property {boolean} written
 * @property {Element} element
 * @property {number} rows
 * @property {number} columns
 * @property {number} stride from the start of a row to the start of the next
 * @property {number} bytes
 */

/**
 * A HydraLoRA layer: `y = W0 x + scaling * sum_i softmax(l)_i B_i A x`. One expert is plain LoRA.
 *
 * @typedef {object} Config
 * @property {number} dIn length of a token's input
 * @property {number} dOut length of a token's output
 * @property {number} rank rows of A (or of each `A_i`), columns of each `B_i`
 * @property {number} [experts] number of matrices `B_i`; by default 1
 * @property {number} [scaling] the factor of the experts' sum, such as alpha / rank; by default 1
 * @property {"input" | "latent" | "givenWeights" | "givenLogits"} [router] what the logits come from: `W_g x` (by default, as
 *   in the released code), `W_g A x` (the paper's formula), or the page, as the tensor `gates` of forward
 * @property {"shared" | "separate"} [a] whether experts share A (by default), or each has one of its own
 * @property {"softmax" | "sigmoid" | "normalisedSigmoid" | { topK: { k: number, renormalise: boolean } }} [weighting] how
 *   logits become weights; by default softmax
 * @property {boolean} [routerBias] whether the router has a bias, which is trained
 * @property {number} [temperature] by what logits are divided, above 0; by default 1
 * @property {boolean} [logsumexp] whether forward saves the logsumexp of the logits, which the z-loss needs
 * @property {Dropout | null} [dropout] in a forward that saves, and in backward
 */

/**
 * Dropout that needs no memory: what is dropped follows from the batch's seed and step, the token and the element.
 *
 * @typedef {object} Dropout
 * @property {number} probability at least 0 and below 1
 * @property {"input" | "latent"} [of] elements of x as A reads it (by default), or of h, for each expert others
 * @property {number} [stream] layers with different streams drop different elements
 */

/**
 * The most tokens of a batch, and the plans for batches with fewer: `several`, each the best for its number of tokens (by
 * default); `one`, which compiles the least; `invariant`, one whose order of sums depends on no number of tokens, so that a
 * token's results have the same bits in any batch.
 *
 * @typedef {{ tokens: number, plans?: "several" | "one" | "invariant" }} Capacity
 */

/**
 * Whether a result overwrites (by default) or is added.
 *
 * @typedef {"overwrite" | "accumulate"} WriteMode
 */

/**
 * Which tokens share a row of given weights or logits: none (by default), so many that follow each other, or all.
 *
 * @typedef {"token" | "batch" | { sequence: number }} GateRows
 */

/**
 * `y (+)= s * sum_i softmax(l)_i B_i A x`
 *
 * Tensors: `x` (tokens x dIn), `parameters` (packed, see `Layout`), `y` (tokens x dOut); with `save` also `saved` (tokens x
 * `Layout.stateLength`, f32); with given weights or logits also `gates` (rows x experts, f32); with `mask` also `mask`
 * (tokens, f32).
 *
 * @typedef {object} ForwardOptions
 * @property {WriteMode} [write] such as `accumulate` to what the frozen layer computed
 * @property {boolean} [save] training: whether `[h, w]` are saved for the backward operations
 * @property {Element} [x]
 * @property {number | null} [xStride] elements from row to row of x, if rows are not dense: a multiple of four
 * @property {Element} [parameters] f32 in training
 * @property {Element} [y]
 * @property {number | null} [yStride]
 * @property {GateRows} [gates]
 * @property {boolean} [mask] whether tokens whose number in `mask` is zero take no adapter
 */

/**
 * The gradient of the input, and the state that `backwardParams` reads.
 *
 * Tensors: `g` (dL/dy, tokens x dOut), `parameters`, `saved` (as forward wrote it), `dstate` (tokens x
 * `Layout.stateLength`, f32; written); unless `dx` is null also `dx` (tokens x dIn); with `gateGradient` also `gateGradient`
 * (rows x experts, f32); with `mask` also `mask`.
 *
 * @typedef {object} BackwardInputOptions
 * @property {Element} [g]
 * @property {number | null} [gStride]
 * @property {{ element?: Element, write?: WriteMode } | null} [dx] null if dx is not wanted; by default f32, overwritten
 * @property {number | null} [dxStride]
 * @property {{ weights: GateRows } | { logits: GateRows } | "losses" | null} [gateGradient] what the tensor `gateGradient` is
 *   a gradient of; `losses` is what `gateLosses` gives
 * @property {boolean} [mask] whether tokens whose number in `mask` is zero have no gradient; below zero, they have none of the
 *   losses
 */

/**
 * The gradients of all parameters.
 *
 * Tensors: `x`, `g`, `saved`, `dstate` (as `backwardInput` wrote it) and `gradients` (packed like the parameters, f32); with
 * `mask` also `mask`.
 *
 * @typedef {object} BackwardParamsOptions
 * @property {WriteMode} [write] `accumulate` adds to the gradients of other tokens
 * @property {Element} [x]
 * @property {number | null} [xStride]
 * @property {Element} [g]
 * @property {number | null} [gStride]
 * @property {boolean} [mask] as `backwardInput` had it
 */

/**
 * The frozen layer, `y (+)= W0 x + bias`, or the gradient of its input, `dx (+)= W0^T g`.
 *
 * Tensors: `x` and `y`, or `g` and `dx`; `weight` (W0, dOut x dIn) and with `bias` also `bias` (dOut, f32).
 *
 * @typedef {object} LinearOptions
 * @property {"forward" | "backward"} [direction]
 * @property {boolean} [bias] only forward
 * @property {WriteMode} [write]
 * @property {Element} [source] of x or g
 * @property {number | null} [sourceStride]
 * @property {Element} [weight]
 * @property {Element} [target] of y or dx
 * @property {number | null} [targetStride]
 */

/**
 * The gradients of given weights or logits that tokens share, after `backwardInput`.
 *
 * Tensors: `dstate`, and `gateGradients` (rows x experts, f32).
 *
 * @typedef {object} GateGradientsOptions
 * @property {GateRows} [rows] as forward had it
 */

/**
 * Losses that keep experts in use, and their gradient for `backwardInput`.
 *
 * Tensors: `saved`; `gateGradient` (experts, f32, one more with `logsumexp`; written); `report` (5 + 2 x experts, f32;
 * written: the number of tokens, balance, spread, the mean entropy of the weights in nats, the z-loss, each expert's share of
 * the tokens and each mean weight); with `mask` also `mask`.
 *
 * @typedef {object} GateLossesOptions
 * @property {number} [balance] the coefficient of the Switch Transformer's balance
 * @property {number} [spread] the coefficient of the squared coefficient of variation of the summed weights
 * @property {number} [z] the coefficient of the z-loss
 * @property {boolean} [mask] whether tokens whose number in `mask` is not above zero do not count
 */

/**
 * An operation on the tokens of a layer, named by its only key.
 *
 * @typedef {{ forward: ForwardOptions } | { backwardInput: BackwardInputOptions } | { backwardParams: BackwardParamsOptions } |
 *   { linear: LinearOptions } | { gateGradients: GateGradientsOptions } | { gateLosses: GateLossesOptions }} Operation
 */

/**
 * AdamW's constants; by default PyTorch's.
 *
 * @typedef {object} AdamWHyper
 * @property {number} [beta1] by default 0.9
 * @property {number} [beta2] by default 0.999
 * @property {number} [epsilon] by default 1e-8
 * @property {number} [weightDecay] decoupled; by default 0.01
 * @property {number | null} [maxNorm] gradients whose global norm exceeds it are scaled down to it, and a step whose norm is
 *   not finite is skipped; by default there is no norm
 * @property {{ a?: GroupHyper, b?: GroupHyper, router?: GroupHyper }} [groups] what differs between A, every `B_i` and the
 *   router
 */

/**
 * @typedef {object} GroupHyper
 * @property {number} [rate] a factor of the learning rate; by default 1
 * @property {number | null} [weightDecay] if not the one of all
 */

/**
 * An adapter's matrices in their natural shapes, row-major, as checkpoints store them; or their gradients.
 *
 * @typedef {object} Matrices
 * @property {Float32Array} a rank x dIn; where each expert has an A, all of them, one below the other
 * @property {Float32Array} [router] `W_g`: experts x dIn, or latent experts x rank
 * @property {Float32Array} [routerBias] experts
 * @property {Float32Array[]} b for each expert, dOut x rank
 */

export {};
