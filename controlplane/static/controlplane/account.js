/* Passkeys: a button with data-passkey asks the browser for a credential and sends it with the form that it is in.

   data-passkey="create" and "get" find their options in #js_data; "login" asks for a challenge first, by POST, since a
   GET changes nothing here. */

(() => {
  "use strict";

  const PROBLEMS = {
    NotAllowedError: "Nothing was confirmed, or it took too long. Try again.",
    InvalidStateError: "This device is registered already.",
    SecurityError: "Passkeys need this page's host name, and HTTPS.",
  };

  const options = () => JSON.parse(document.getElementById("js_data").textContent);

  async function challenge(form) {
    const body = new FormData();
    body.set("csrfmiddlewaretoken", form.elements.csrfmiddlewaretoken.value);
    const response = await fetch(form.action, { method: "POST", body });
    if (response.status === 429) {
      throw new Error(`Too many attempts. Try again in ${response.headers.get("Retry-After")} seconds.`);
    }
    if (!response.ok || response.redirected) throw new Error("Reload this page and try again.");
    return (await response.json()).request_options;
  }

  function creationOptions(form) {
    const found = options().creation_options;
    const isAlone = form.elements.passwordless.checked;
    const selection = found.publicKey.authenticatorSelection;
    selection.residentKey = isAlone ? "required" : "discouraged";
    selection.requireResidentKey = isAlone;
    if (isAlone) selection.userVerification = "required";
    return found;
  }

  async function ask(kind, form) {
    if (kind === "create") return window.webauthnJSON.create(creationOptions(form));
    return window.webauthnJSON.get(kind === "login" ? await challenge(form) : options().request_options);
  }

  async function press(button) {
    const form = button.form;
    const problem = form.querySelector("[data-problem]");
    problem.hidden = true;
    button.disabled = true;
    try {
      form.elements.credential.value = JSON.stringify(await ask(button.dataset.passkey, form));
      form.submit();
    } catch (error) {
      problem.textContent = PROBLEMS[error.name] || error.message;
      problem.hidden = false;
    }
    button.disabled = false;
  }

  // The page is hidden until Alpine has started, and browsers do not give the focus to what is hidden.
  window.addEventListener("load", () => {
    if (document.activeElement === document.body) document.querySelector("[autofocus]")?.focus();
  });

  // The token of an invitation is in the fragment, which no server and no next page is told; it leaves the address, too.
  function openInvitation() {
    const form = document.getElementById("invitation-form");
    if (!form || location.hash.length < 2) return;
    form.elements.token.value = location.hash.slice(1);
    history.replaceState(null, "", location.pathname);
    form.submit();
  }

  // A link over the page of another one loads nothing, since only the fragment differs: here the address does, too.
  window.addEventListener("hashchange", () => {
    if (!location.pathname.endsWith("/account/invitation/") || !/^#[0-9a-f]{64}$/.test(location.hash)) return;
    if (document.getElementById("invitation-form")) openInvitation();
    else location.replace(`${location.pathname}?another${location.hash}`);
  });

  document.addEventListener("DOMContentLoaded", () => {
    openInvitation();
    for (const button of document.querySelectorAll("button[data-passkey]")) {
      button.addEventListener("click", (event) => {
        event.preventDefault();
        press(button);
      });
    }
  });
})();
