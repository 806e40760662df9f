// What the console's own pages do in the browser: keep relative times fresh, copy to the clipboard, refresh a part of the page.
"use strict";
(() => {
  const UNITS = [["d", 86400, 2], ["h", 3600, 2], ["min", 60, 2], ["s", 1, 0]];

  function relative(then) {
    const seconds = (Date.now() - then) / 1000;
    const span = Math.floor(Math.abs(seconds));
    const [name, size] = UNITS.find(([, size, least]) => span >= size * least);
    const text = `${Math.floor(span / size)} ${name}`;
    return seconds >= 0 ? `${text} ago` : `in ${text}`;
  }

  function freshen() {
    for (const element of document.querySelectorAll("time[data-moment]")) {
      const then = Date.parse(element.dateTime);
      element.textContent = relative(then);
      if (!element.dataset.local) {
        element.dataset.local = "shown";
        const local = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "medium"});
        element.title += `\n${local.format(then)} ${local.resolvedOptions().timeZone}`;
      }
    }
  }

  // <button data-copy="id of the element whose text is copied">
  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(source);
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = label; }, 2000);
  }

  // <div data-refresh="/url" data-seconds="3">: its content is replaced by the URL's, until that says it is final.
  async function refresh(part) {
    if (document.hidden) return;
    const response = await fetch(part.dataset.refresh, {headers: {"X-Requested-With": "fetch"}}).catch(() => null);
    if (!response || !response.ok || response.redirected) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    part.replaceChildren(...page.body.childNodes);
    if (part.querySelector("[data-final]")) clearInterval(Number(part.dataset.timer));
    freshen();
  }

  // <div data-verify="/url"><button type="button">...<div role="status">: sends the form around it there, saves nothing,
  // and shows the answer until something else is typed.
  async function verify(part, button) {
    const status = part.querySelector("[role=status]");
    if (part.ariaBusy === "true") return;
    part.ariaBusy = "true";
    status.textContent = "Connecting...";
    const request = {method: "POST", body: new FormData(button.form)};
    const text = await fetch(part.dataset.verify, request).then((response) => response.text()).catch(() => "");
    const outcome = new DOMParser().parseFromString(text, "text/html").querySelector("[data-outcome]");
    status.replaceChildren(outcome ?? "Nothing was verified. Reload the page and try again.");
    part.ariaBusy = "false";
  }

  document.addEventListener("input", (event) => {
    event.target.form?.querySelector("[data-verify] [data-outcome]")?.remove();
  });
  document.addEventListener("click", (event) => {
    const verifier = event.target.closest("[data-verify] button");
    if (verifier) verify(verifier.closest("[data-verify]"), verifier);
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });
  // Select2 names its boxes after their content, so that an empty one has no name; its field's label is the better one.
  function nameSelects() {
    for (const select of document.querySelectorAll("select.admin-autocomplete")) {
      const label = document.querySelector(`label[for="${select.id}"]`)?.textContent.replace("*", "").trim();
      for (const box of select.parentElement.querySelectorAll(`[aria-labelledby="select2-${select.id}-container"], #select2-${select.id}-container`)) {
        if (label) box.setAttribute("aria-label", label);
        if (box.role === "combobox" && label) box.removeAttribute("aria-labelledby");
      }
    }
  }

  addEventListener("load", () => setTimeout(nameSelects));
  document.addEventListener("DOMContentLoaded", () => {
    freshen();
    setInterval(freshen, 5000);
    for (const part of document.querySelectorAll("[data-refresh]")) {
      part.dataset.timer = setInterval(refresh, 1000 * Number(part.dataset.seconds), part);
    }
  });
})();
