// The button that copies a new key. Without it the field can be selected and copied by hand.

const button = document.querySelector("button[data-copy]");
const field = button && document.getElementById(button.dataset.copy);
const said = document.getElementById("copied");

/** Copies the field's text; where the browser does not allow that, selects it and says so. */
async function copy() {
  said.textContent = "";
  try {
    await navigator.clipboard.writeText(field.value);
    said.textContent = button.dataset.copied;
  } catch {
    field.focus();
    field.select();
    said.textContent = button.dataset.failed;
  }
}

if (field && said) {
  button.hidden = false;
  button.addEventListener("click", copy);
  field.addEventListener("focus", () => field.select());
}
