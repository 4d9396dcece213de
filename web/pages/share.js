// What a page gives away: to the clipboard, or as a file.

// Copies a text, or fails with what the page explains.
export async function copy(text) {
    try {
        await navigator.clipboard.writeText(text);
    } catch (error) {
        throw { kind: "clipboard", message: String(error) };
    }
}

// Has the browser keep a text as a file.
export function download(name, text, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
