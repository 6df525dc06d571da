// What every page may use. Nothing here is needed to read or to post: without it dialogs stand in the page.

/** The browser's zone, for the dates that the server writes. */
function rememberZone() {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (!zone || document.cookie.split("; ").includes(`listmill_zone=${encodeURIComponent(zone)}`)) return;
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `listmill_zone=${encodeURIComponent(zone)}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
}

/** A dialog of the page becomes modal; closing it goes to the page below. */
function openModally(dialog) {
  dialog.removeAttribute("open");
  dialog.showModal();
  const leave = () => location.assign(dialog.dataset.close);
  dialog.addEventListener("cancel", (event) => {
    if (event.target !== dialog) return;
    event.preventDefault();
    leave();
  });
  dialog.addEventListener("close", leave);
}

/** `/` goes to the search field, `g` and a letter to a page, `?` shows the keys. */
function listenToKeys() {
  const sheet = document.getElementById("shortcuts");
  let went = 0; // when `g` was pressed
  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
    if (at.isContentEditable || at.closest?.("input, textarea, select") || document.querySelector("dialog:modal")) return;
    const follows = event.timeStamp - went < 1500;
    went = 0;
    if (event.key === "g") {
      went = event.timeStamp;
    } else if (follows && /^[a-z]$/.test(event.key)) {
      document.querySelector(`a[data-go="${event.key}"]`)?.click();
    } else if (event.key === "/") {
      const field = document.querySelector("main input[type=search]");
      if (!field) return;
      event.preventDefault();
      field.focus();
      field.select();
    } else if (event.key === "?" && sheet) {
      event.preventDefault();
      sheet.showModal();
    }
  });
}

rememberZone();
document.querySelectorAll("dialog[open][data-modal]").forEach(openModally);
document.querySelector(".nav [aria-current]")?.scrollIntoView({ inline: "nearest", block: "nearest" });
listenToKeys();
