import { el } from "../tensorboard_plugin/static/dom.js";
import { find, plates, presentVerdicts } from "./page_data.js";
import { FilterDialog } from "./page_detail.js";
import { FilterTable } from "./page_filters.js";
import { fillChart, fillHeader, fillNumbers } from "./page_overview.js";
import { setScale, showScale } from "./page_scale.js";
import { followTheme } from "./page_theme.js";

/** Build the page of a comparison from the data that is embedded in it. */
function buildPage() {
  followTheme();
  layOutTiles();
  const table = new FilterTable({ open: (filter) => dialog.open(filter) });
  const dialog = new FilterDialog({ table });
  fillHeader();
  fillNumbers();
  fillChart((filter) => dialog.open(filter));
  fillTools(table);
  showScale();
  table.arrange();
}

function layOutTiles() {
  const { style } = document.documentElement;
  style.setProperty("--tiles", plates.length);
  // The slices of one tile must stand nearer to each other than two tiles do.
  if (plates.some((plate) => plate.isVolume)) style.setProperty("--gap", "16px");
  style.setProperty("--abreast", plates.length > 4 ? Math.ceil(plates.length / 2) : Math.max(plates.length, 3));
}

function fillTools(table) {
  const options = [["", "any or none"], ["new", "new ones"], ["gone", "gone ones"], ...presentVerdicts.map((name) => [name, name])];
  find("verdict").append(...options.map(([value, name]) => el("option", { value }, name)));
  find("verdict").addEventListener("change", () => table.arrange());
  find("which").addEventListener("input", () => table.arrange());
  find("tools").addEventListener("submit", (event) => event.preventDefault());
  find("scales").addEventListener("change", (event) => setScale(event.target.value));
  find("scales").hidden = find("scale").hidden = !plates.length;
}

buildPage();
