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

  // Seconds until the control plane is asked again after an answer that is none: as many as it says, and twice as long
  // as the last time.
  const LONGEST_PAUSE = 60;
  function pauseAfter(retryAfter, last) {
    return Math.max(Number(retryAfter) || 0, Math.min(2 * last, LONGEST_PAUSE));
  }

  const mayPass = (status) => !status || status === 429 || status >= 500;
  const isBusy = (status) => status === 429 || status === 503;
  const reason = (status) => `The control plane ${isBusy(status) ? "is busy" : "does not answer"}`;

  function note(text) {
    const element = document.createElement("p");
    element.className = "cp-problem";
    element.role = "status";
    element.textContent = text;
    return element;
  }

  // <div data-refresh="/url" data-seconds="3">: its content is replaced by the URL's, until that says it is final. While
  // there is none the content stays, with what is wrong below it, and the URL is asked less and less often.
  async function refresh(part) {
    const usual = Number(part.dataset.seconds);
    let pause = usual, told = null;
    const tell = (text) => {
      told?.remove();
      told = text ? note(text) : null;
      if (told) part.after(told);
    };
    while (!part.querySelector("[data-final]")) {
      await new Promise((resolve) => { setTimeout(resolve, 1000 * pause); });
      if (document.hidden) continue;
      let response, text;
      try {
        response = await fetch(part.dataset.refresh, {headers: {"X-Requested-With": "fetch"}});
        text = await response.text();
      } catch {
        response = null;
      }
      if (response?.ok && !response.redirected) {
        const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
        part.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
        freshen();
        // Whoever goes by keyboard stays at the link.
        if (focused) part.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({preventScroll: true});
        tell("");
        pause = usual;
      } else if (mayPass(response?.status)) {
        pause = pauseAfter(response?.headers.get("Retry-After"), pause);
        tell(`${reason(response?.status)}: it is asked again in ${pause} s.`);
      } else {
        tell("Nothing new is shown here any more: reload the page.");
        return;
      }
    }
  }

  // The palette, which is unfold's and asks with htmx while somebody types: after an answer that is none it is silent
  // for a while, says so, and then asks for what is typed by then.
  const PALETTE = "search-input-command";
  let palettePause = 1, isPaletteSilent = false;

  function silencePalette(event) {
    const input = event.target;
    if (input.id !== PALETTE) return;
    const {xhr} = event.detail;
    palettePause = pauseAfter(xhr.getResponseHeader("Retry-After"), palettePause);
    isPaletteSilent = true;
    const told = note(`${reason(xhr.status)}: the search goes on in ${palettePause} s.`);
    document.getElementById("command-results").replaceChildren(told);
    setTimeout(() => {
      isPaletteSilent = false;
      told.remove();
      if (input.value) window.htmx.ajax("GET", input.getAttribute("hx-get"), {source: input, target: "#command-results"});
    }, 1000 * palettePause);
  }

  document.addEventListener("htmx:responseError", silencePalette);
  document.addEventListener("htmx:sendError", silencePalette);
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target.id === PALETTE && isPaletteSilent) event.preventDefault();
  });
  document.addEventListener("htmx:afterOnLoad", (event) => {
    if (event.target.id === PALETTE && event.detail.xhr.status < 400) palettePause = 1;
  });

  // <div data-verify="/url"><button type="button">...<div role="status">: sends the form around it there, saves nothing,
  // and shows the answer until something else is typed.
  async function verify(part, button) {
    const status = part.querySelector("[role=status]");
    if (part.ariaBusy === "true") return;
    part.ariaBusy = "true";
    status.textContent = "Connecting...";
    const request = {method: "POST", body: new FormData(button.form)};
    const response = await fetch(part.dataset.verify, request).catch(() => null);
    const text = await response?.text().catch(() => "") ?? "";
    const outcome = new DOMParser().parseFromString(text, "text/html").querySelector("[data-outcome]");
    const next = mayPass(response?.status) ? `${reason(response?.status)}: try again in a moment.` : "Reload the page and try again.";
    status.replaceChildren(outcome ?? `Nothing was verified. ${next}`);
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
      refresh(part);
    }
  });
})();
