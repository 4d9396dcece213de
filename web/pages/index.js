// The front page: what the device is.

import { checked } from "./check.js";
import { table } from "./draw.js";
import { Library } from "./library.js";

const library = new Library();

checked(async () => {
    const device = await library.call("device");
    const traits = [device.description, await library.device(), device.timestamps && "with timestamps"];
    document.querySelector("#device").textContent = traits.filter(Boolean).join(", ");
    const rows = device.limits.map(([name, value]) => [name, value.toLocaleString("en")]);
    document.querySelector("#limits").replaceChildren(table(["Limit", "Value"], rows));
    return { ok: rows.length > 0, message: traits.filter(Boolean).join(", "), data: device };
});
