// The front page: what the device is.

import { checked } from "./check.js";
import { Library } from "./library.js";

const library = new Library();

checked(async () => {
    const device = await library.call("device");
    const traits = [device.description, await library.device(), device.timestamps && "with timestamps"];
    document.querySelector("#device").textContent = traits.filter(Boolean).join(", ");
    const rows = device.limits.map(([name, value]) => {
        const row = document.createElement("tr");
        row.insertCell().textContent = name;
        const cell = row.insertCell();
        cell.className = "number";
        cell.textContent = value.toLocaleString("en");
        return row;
    });
    document.querySelector("#limits tbody").replaceChildren(...rows);
    document.querySelector("#limits").hidden = false;
    return { ok: rows.length > 0, message: traits.filter(Boolean).join(", "), data: device };
});
