import { find } from "./page_data.js";

/** Light and dark: as the system has it, until the button is pressed; the browser keeps the choice. */

const STORAGE_KEY = "kernelviz-theme";
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

export function followTheme() {
  const follow = () => setTheme(storedTheme() ?? (prefersDark.matches ? "dark" : "light"));
  follow();
  prefersDark.addEventListener("change", follow);
  find("theme").addEventListener("click", switchTheme);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  find("theme").setAttribute("aria-pressed", String(theme === "dark"));
}

function storedTheme() {
  try { return localStorage.getItem(STORAGE_KEY); } catch { return null; }
}

function switchTheme() {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  setTheme(theme);
  try { localStorage.setItem(STORAGE_KEY, theme); } catch { /* A browser may forbid it to a page from a disk. */ }
}
