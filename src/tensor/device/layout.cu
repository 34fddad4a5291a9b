#define TILE 16

// to[item, column, row] ← x[item, row, column], a tile of 16 × 16 a block.
KERNEL(transpose, const REAL *x, REAL *to, Int height, Int width) {
    __shared__ REAL tile[TILE][TILE + 1];
    Int across = quotient(width + TILE - 1, TILE), down = quotient(height + TILE - 1, TILE);
    Int band = quotient(blockIdx.x, across), left = (blockIdx.x - band * across) * TILE;
    Int item = quotient(band, down), top = (band - item * down) * TILE;
    int a = (int)threadIdx.x / TILE, b = (int)threadIdx.x % TILE;
    Int start = item * height * width;
    if (top + a < height && left + b < width) tile[a][b] = x[start + (top + a) * width + left + b];
    __syncthreads();
    if (top + b < height && left + a < width) to[start + (left + a) * height + top + b] = tile[b][a];
}

// to ← factor · x, n complex numbers in arrays [n0, n1, n2] whose middle goes to index 0, or back.
KERNEL(rotate, const REAL *x, REAL *to, Int n, Int n0, Int n1, Int n2, Int back, double factor) {
    Int i = element();
    if (i >= n) return;
    Int size = n0 * n1 * n2, start = quotient(i, size) * size;
    Int from = start + rotated(i - start, n0, n1, n2, back);
    to[2 * i] = (REAL)factor * x[2 * from];
    to[2 * i + 1] = (REAL)factor * x[2 * from + 1];
}

KERNEL(copy, const REAL *x, REAL *to, Int n) {
    Int i = element();
    if (i < n) to[i] = x[i];
}

KERNEL(scale, REAL *x, Int n, double factor) {
    Int i = element();
    if (i < n) x[i] *= (REAL)factor;
}

KERNEL(fill, REAL *x, Int n, double value) {
    Int i = element();
    if (i < n) x[i] = (REAL)value;
}

// Where element `index` of the parts [item, s0, s1, s2, own] lies in the wholes [item, l0, l1, l2, all].
DEVICE Int inset(Int index, Int s0, Int s1, Int s2, Int l0, Int l1, Int l2, Int c0, Int c1, Int c2, Int own, Int all) {
    Int point = quotient(index, own), row = quotient(point, s2);
    Int plane = quotient(row, s1), item = quotient(plane, s0);
    Int i = plane - item * s0 + c0, j = row - plane * s1 + c1, k = point - row * s2 + c2;
    return (((item * l0 + i) * l1 + j) * l2 + k) * all + index - point * own;
}

KERNEL(cut, const REAL *whole, REAL *part, Int n, Int s0, Int s1, Int s2, Int l0, Int l1, Int l2, Int c0, Int c1, Int c2,
       Int own, Int all) {
    Int index = element();
    if (index < n) part[index] = whole[inset(index, s0, s1, s2, l0, l1, l2, c0, c1, c2, own, all)];
}

KERNEL(put, const REAL *part, REAL *whole, Int n, Int s0, Int s1, Int s2, Int l0, Int l1, Int l2, Int c0, Int c1, Int c2,
       Int own, Int all) {
    Int index = element();
    if (index < n) whole[inset(index, s0, s1, s2, l0, l1, l2, c0, c1, c2, own, all)] = part[index];
}

// to[z, y, x] ← from[(z + a) mod depth, (y + b) mod height, (x + c) mod width], items one after the other.
KERNEL(roll, const REAL *from, REAL *to, Int n, Int depth, Int height, Int width, Int a, Int b, Int c) {
    Int index = element();
    if (index >= n) return;
    Int row = quotient(index, width), plane = quotient(row, height), item = quotient(plane, depth);
    Int z = plane - item * depth + a, y = row - plane * height + b, x = index - row * width + c;
    if (z >= depth) z -= depth;
    if (y >= height) y -= height;
    if (x >= width) x -= width;
    to[index] = from[((item * depth + z) * height + y) * width + x];
}
