// Brings what is marked `data-live` up to date without a reload: asks for the same page now and then, and puts
// what is new in the place of what was shown. What somebody has open or is typing in stays as it is, and of it
// the marked parts within are looked at. Without this script the page is the same, and a reload does it.
(() => {
  "use strict";
  const EVERY_MS = 10000;
  const status = document.getElementById("live");
  let asking = false;

  const isBusy = (element) =>
    element.contains(document.activeElement) || element.querySelector("details[open]") !== null;

  const bring = (now, fresh) => {
    for (const next of fresh.querySelectorAll("[data-live]")) {
      const shown = next.id && now.querySelector(`#${CSS.escape(next.id)}`);
      if (!shown || shown.isEqualNode(next) || isBusy(shown)) continue;
      shown.replaceWith(document.importNode(next, true));
    }
  };

  const refresh = async () => {
    if (document.hidden || asking) return;
    asking = true;
    try {
      const reply = await fetch(location.href, { headers: { "x-toktra-live": "1" }, cache: "no-store" });
      if (reply.redirected) {
        // The session is over.
        clearInterval(timer);
        location.reload();
        return;
      }
      if (!reply.ok) throw new Error(String(reply.status));
      bring(document, new DOMParser().parseFromString(await reply.text(), "text/html"));
      status.textContent = `Live. Up to date at ${new Date().toLocaleTimeString()}.`;
    } catch {
      status.textContent = "Not up to date: the server does not answer. It is asked again.";
    } finally {
      asking = false;
    }
  };

  const timer = setInterval(refresh, EVERY_MS);
  document.addEventListener("visibilitychange", refresh);
  status.hidden = false;
})();
