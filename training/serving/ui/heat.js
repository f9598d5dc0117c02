// The class-activation map over the picture: dark where nothing spoke for the class, bright where most did.

const SIDE = 168; // pixels of the canvas; the page stretches it
const STOPS = [ // share of the evidence -> red, green, blue, opacity
  [0.0, 10, 12, 34, 0.74],
  [0.4, 52, 18, 74, 0.56],
  [0.75, 226, 74, 40, 0.4],
  [1.0, 255, 196, 70, 0.34],
];

/** A canvas of `heat`, rows of numbers between 0 and 1. */
export function draw(heat, canvas) {
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  const image = context.createImageData(SIDE, SIDE);
  for (let y = 0; y < SIDE; y += 1) {
    for (let x = 0; x < SIDE; x += 1) {
      image.data.set(colour(between(heat, x / (SIDE - 1), y / (SIDE - 1))), 4 * (y * SIDE + x));
    }
  }
  context.putImageData(image, 0, 0);
}

/** Where on a picture the network looks: the middle square, as shares of width and height. */
export function square(width, height, { size, resize }) {
  const side = (Math.min(width, height) * size) / resize;
  return { left: (1 - side / width) / 2, top: (1 - side / height) / 2, width: side / width, height: side / height };
}

/** The map at (x, y), both from 0 to 1: each cell stands for its middle, and neighbours blend softly. */
function between(heat, x, y) {
  const [top, bottom, down] = cells(y, heat.length);
  const [left, right, along] = cells(x, heat[0].length);
  const mix = (row) => heat[row][left] + (heat[row][right] - heat[row][left]) * along;
  return mix(top) + (mix(bottom) - mix(top)) * down;
}

function cells(place, number) {
  const exact = Math.min(Math.max(place * number - 0.5, 0), number - 1);
  const first = Math.floor(exact);
  const share = exact - first;
  return [first, Math.min(first + 1, number - 1), share * share * (3 - 2 * share)];
}

function colour(share) {
  const above = Math.max(1, STOPS.findIndex(([stop]) => share <= stop));
  const [low, high] = [STOPS[above - 1], STOPS[above]];
  const part = Math.min(1, Math.max(0, (share - low[0]) / (high[0] - low[0])));
  const [red, green, blue, opacity] = low.slice(1).map((value, index) => value + (high[index + 1] - value) * part);
  return [red, green, blue, opacity * 255];
}
