// The class-activation map over the whole picture: clear where nothing spoke for the class, glowing where most did.

const LONG = 256; // pixels of the canvas along the picture's long side; the page stretches it
const SOFT = 0.24; // of the square's side: so far from its border, inside, the map fades out
const CLEAR = 0.2; // share of the evidence up to which nothing is drawn
const STOPS = [ // share of the evidence -> red, green, blue, opacity
  [CLEAR, 120, 20, 110, 0],
  [0.5, 200, 40, 80, 0.36],
  [0.75, 244, 110, 30, 0.52],
  [1.0, 255, 214, 64, 0.62],
];

/** Draw `heat`, rows of numbers between 0 and 1 that lie over `place` of a picture, on a canvas of the picture's shape. */
export function draw(heat, canvas, place, ratio) {
  canvas.width = Math.round(LONG * Math.min(1, ratio));
  canvas.height = Math.round(LONG * Math.min(1, 1 / ratio));
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const field = new Float32Array(width * height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const across = ((x + 0.5) / width - place.left) / place.width;
      const down = ((y + 0.5) / height - place.top) / place.height;
      field[y * width + x] = smooth(heat, across, down) * edge(across, place.width) * edge(down, place.height);
    }
  }
  const most = field.reduce((highest, each) => Math.max(highest, each), 0) || 1; // smoothing has lowered the peak
  field.forEach((each, index) => image.data.set(colour(each / most), 4 * index));
  context.putImageData(image, 0, 0);
}

/** Where on a picture the network looks: the middle square, as shares of width and height. */
export function square(width, height, { size, resize }) {
  const side = (Math.min(width, height) * size) / resize;
  return { left: (1 - side / width) / 2, top: (1 - side / height) / 2, width: side / width, height: side / height };
}

/** 1 within the square and 0 beyond it, softly; a border that is the picture's own does not fade. */
function edge(place, share) {
  if (place < 0 || place > 1) return 0;
  if (share > 0.999) return 1;
  const near = Math.min(1, Math.min(place, 1 - place) / SOFT);
  return near * near * (3 - 2 * near);
}

/** The map at (x, y), both from 0 to 1, by a cubic B-spline: no cell of the map shows. */
function smooth(heat, x, y) {
  const [rows, down] = spline(y, heat.length);
  const [columns, along] = spline(x, heat[0].length);
  let sum = 0;
  for (let i = 0; i < 4; i += 1) {
    for (let j = 0; j < 4; j += 1) sum += down[i] * along[j] * heat[rows[i]][columns[j]];
  }
  return sum;
}

/** The four cells around a place and their weights; beyond the map its border goes on. */
function spline(place, number) {
  const exact = place * number - 0.5;
  const first = Math.floor(exact);
  const t = exact - first;
  const weights = [(1 - t) ** 3, 3 * t ** 3 - 6 * t ** 2 + 4, -3 * t ** 3 + 3 * t ** 2 + 3 * t + 1, t ** 3];
  const cells = [-1, 0, 1, 2].map((step) => Math.min(Math.max(first + step, 0), number - 1));
  return [cells, weights.map((each) => each / 6)];
}

function colour(share) {
  if (share <= CLEAR) return [0, 0, 0, 0];
  const above = Math.max(1, STOPS.findIndex(([stop]) => share <= stop + 1e-6));
  const [low, high] = [STOPS[above - 1], STOPS[above]];
  const part = (share - low[0]) / (high[0] - low[0]);
  const [red, green, blue, opacity] = low.slice(1).map((value, index) => value + (high[index + 1] - value) * part);
  return [red, green, blue, opacity * 255];
}
