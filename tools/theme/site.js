// What scrolls can be reached and scrolled by the keyboard; what does not is no stop.
function reachable() {
  for (const box of document.querySelectorAll("pre, .output, .table-wrapper, .math, p:has(> img)")) {
    const large = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    if (large) box.tabIndex = 0; else box.removeAttribute("tabindex");
  }
}
addEventListener("load", reachable);
addEventListener("resize", reachable);

// The theme opens its menus on narrow pages by labels, which neither a keyboard reaches nor a screen
// reader names.
addEventListener("load", () => {
  for (const label of document.querySelectorAll("label.nav-overlay-icon, label.toc-overlay-icon")) {
    const button = label.querySelector(".icon");
    button.tabIndex = 0;
    button.setAttribute("role", "button");
    button.setAttribute("aria-label", label.htmlFor === "__toc" ? "On this page" : "Site menu");
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      label.click();
    });
  }
});
