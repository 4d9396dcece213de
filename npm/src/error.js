/** Every reason for which the package refuses or fails. */

/** A mistake or a failure. `message` has the numbers and says what to do; `code` and `details` are for programs. */
export class HydraloraError extends Error {
  /**
   * @param {string} code which kind: the names of the Rust library's `Error`, and `InvalidOption`
   * @param {string} message
   * @param {Record<string, unknown>} [details] the numbers of the message
   * @param {ErrorOptions} [options]
   */
  constructor(code, message, details = {}, options) {
    super(message, options);
    this.name = "HydraloraError";
    /** Which kind: the names of the Rust library's `Error`, and `InvalidOption`. */
    this.code = code;
    /** The numbers of the message. */
    this.details = details;
  }
}

/**
 * The names of the Rust library as JavaScript writes them: `backward_input` is `backwardInput`.
 *
 * @param {string} text
 */
export function camelCase(text) {
  return text.replace(/\b[a-z]\w*\b/g, (word) => word.replace(/_([a-z0-9])/g, (_, letter) => letter.toUpperCase()));
}

/**
 * What `work` gives. Errors that the planner throws are JSON.
 *
 * @template T
 * @param {() => T} work
 */
export function planned(work) {
  try {
    return work();
  } catch (error) {
    if (typeof error !== "string") throw error;
    const { code, message, ...details } = JSON.parse(error);
    throw new HydraloraError(code, camelCase(message), details);
  }
}

/**
 * JSON for the planner. Numbers that JSON would turn into null are refused.
 *
 * @param {unknown} value
 */
export function json(value) {
  return JSON.stringify(value, (name, part) => {
    if (typeof part === "number" && !Number.isFinite(part)) {
      const expected = "finite";
      throw new HydraloraError("InvalidNumber", `${name} is ${part}: it must be finite`, { name, value: part, expected });
    }
    return part;
  });
}

const FILTERS = /** @type {const} */ (["validation", "out-of-memory", "internal"]);

/**
 * What `work` makes on the device. Resolves when the device has accepted it.
 *
 * @template T
 * @param {GPUDevice} device
 * @param {string} action what is being done, for the message
 * @param {() => T} work
 * @returns {Promise<T>}
 */
export async function scoped(device, action, work) {
  for (const filter of FILTERS) device.pushErrorScope(filter);
  /** @type {Promise<GPUError | null>[]} */
  let reports = [];
  let made;
  try {
    made = work();
  } finally {
    reports = FILTERS.map(() => device.popErrorScope());
  }
  const error = (await Promise.all(reports).catch((error) => [error])).find(Boolean);
  if (error) throw refused(action, error);
  return made;
}

/**
 * The error for something that the device refused.
 *
 * @param {string} action
 * @param {{ message: string }} cause
 */
export function refused(action, cause) {
  const message = `the device reported an error while ${action}: ${cause.message}`;
  return new HydraloraError("Device", message, { action }, { cause });
}
