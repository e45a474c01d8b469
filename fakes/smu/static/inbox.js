// Adds new messages without a reload, so that typed text stays, and gives each e-mail's frame the height of its content.
const POLL_MS = 2000;
const messages = document.getElementById("messages");

/** Fit the height of a frame to its content. The sandbox allows the same origin for this, but no scripts. */
function fit(frame) {
  frame.style.height = "0";
  frame.style.height = `${frame.contentDocument.documentElement.scrollHeight + 2}px`;
}

async function poll() {
  try {
    const answer = await fetch(location.href, {headers: {Accept: "text/html"}});
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = [...page.getElementById("messages").children];
    const known = new Map([...messages.children].map(shown => [shown.dataset.id, shown]));
    messages.replaceChildren(...fresh.map(one => known.get(one.dataset.id) ?? prepare(document.adoptNode(one))));
  } catch {
    // the fake was restarted, and the next poll tries again
  }
  setTimeout(poll, POLL_MS);
}

function prepare(message) {
  for (const frame of message.querySelectorAll("iframe")) {
    frame.addEventListener("load", () => fit(frame));
    if (frame.contentDocument?.readyState === "complete") fit(frame);
  }
  return message;
}

[...messages.children].forEach(prepare);
addEventListener("resize", () => messages.querySelectorAll("iframe").forEach(fit));
setTimeout(poll, POLL_MS);
