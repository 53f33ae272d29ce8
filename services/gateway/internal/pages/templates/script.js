"use strict";
(function () {
  // problem turns an answer that is not good into its sentence for people.
  async function problem(response) {
    try {
      const p = await response.json();
      return p.detail || p.title;
    } catch {
      return "Devpilot answered with status " + response.status + ". Try again in a moment.";
    }
  }

  async function post(path, body, method) {
    let response;
    try {
      response = await fetch(path, {
        method: method || "POST",
        headers: { "Content-Type": "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
        credentials: "same-origin",
      });
    } catch {
      throw new Error("Devpilot did not answer. Check that it runs, then try again.");
    }
    if (!response.ok) throw new Error(await problem(response));
    return response.json();
  }

  // run keeps the button from being pressed twice and shows what went wrong beside it.
  async function run(button, message, action) {
    button.disabled = true;
    message.textContent = "";
    try {
      await action();
    } catch (error) {
      message.textContent = error.message;
      button.disabled = false;
    }
  }

  // What a link has in its fragment works once: it has no business in the address bar or the history.
  const fragment = new URLSearchParams(location.hash.slice(1));
  const page = document.getElementById("sign-in-page");
  if (page && fragment.size > 0) history.replaceState(null, "", location.pathname + location.search);
  if (page) {
    const invitation = fragment.get("invitation") || "";
    document.getElementById("invited").hidden = !invitation;
    for (const button of page.querySelectorAll("button[data-provider]")) {
      button.addEventListener("click", () =>
        run(button, document.getElementById("provider-message"), async () => {
          const begun = await post("/sign-in/" + button.dataset.provider, { next: page.dataset.next, invitation: invitation });
          location.assign(begun.authorizeUrl);
        }));
    }
    // A browser that comes back keeps the page as it was left.
    addEventListener("pageshow", () => page.querySelectorAll("button[data-provider]").forEach((b) => { b.disabled = false; }));
  }

  const signIn = document.getElementById("sign-in");
  if (signIn) {
    const button = signIn.querySelector("button");
    const input = signIn.querySelector("input");
    const message = document.getElementById("sign-in-message");
    const exchange = (token) =>
      run(button, message, async () => {
        await post("/v1/session", { token: token });
        location.replace(signIn.dataset.next);
      });
    const code = fragment.get("code");
    if (code) {
      const details = signIn.closest("details");
      if (details) details.open = true;
      exchange(code);
    }
    signIn.addEventListener("submit", (event) => {
      event.preventDefault();
      exchange(input.value.trim());
    });
  }

  const signOut = document.getElementById("sign-out");
  if (signOut) {
    signOut.addEventListener("click", () =>
      run(signOut, document.getElementById("page-message"), async () => {
        const out = await post("/v1/session", undefined, "DELETE");
        location.replace(out.signOutUrl || "/sign-in");
      }));
  }

  for (const button of document.querySelectorAll("button[data-connect]")) {
    const message = button.closest("section").querySelector("[role=alert]");
    button.addEventListener("click", () =>
      run(button, message, async () => {
        const path = "/v1/workspaces/" + encodeURIComponent(button.dataset.connect) + "/integrations/bitbucket:connect";
        const begun = await post(path, { returnPath: "/" });
        location.assign(begun.authorizeUrl);
      }));
  }
})();
