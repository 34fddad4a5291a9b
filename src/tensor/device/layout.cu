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
