// Gridding. Samples are sums over taps[0] · taps[1] · taps[2] neighbours on a grid [depth, height, width]; `first` holds the
// first tap of every sample along each axis, `weights` [sample, taps of the first axis, of the second, of the third].

DEVICE Int wrapped(Int i, Int n) { return i < n ? i : i - n; }

// samples[item, sample] from grid[item].
KERNEL(take, const REAL *weights, const REAL *grid, REAL *samples, const double *first, Int n, Int count, Int depth,
       Int height, Int width, Int a, Int b, Int c) {
    Int index = element();
    if (index >= n) return;
    Int item = quotient(index, count), sample = index - item * count;
    const REAL *wz = weights + sample * (a + b + c), *wy = wz + a, *wx = wy + b;
    Int z = (Int)first[3 * sample], y = (Int)first[3 * sample + 1], x = (Int)first[3 * sample + 2];
    grid += 2 * item * depth * height * width;
    REAL re = 0, im = 0;
    for (Int i = 0; i < a; i++)
        for (Int j = 0; j < b; j++) {
            const REAL *row = grid + 2 * (wrapped(z + i, depth) * height + wrapped(y + j, height)) * width;
            REAL weight = wz[i] * wy[j];
            for (Int k = 0; k < c; k++) {
                const REAL *at = row + 2 * wrapped(x + k, width);
                re += weight * wx[k] * at[0];
                im += weight * wx[k] * at[1];
            }
        }
    samples[2 * index] = re;
    samples[2 * index + 1] = im;
}

// The adjoint: one thread a point of the grid, one block a tile of t0 · t1 · t2 = 256 points, which looks at the samples
// that touch it in their order. `tiles` holds where the samples of each tile begin and where the last end, then the samples.
KERNEL(spread, const REAL *weights, const REAL *samples, REAL *grid, const double *first, const double *tiles, Int count,
       Int depth, Int height, Int width, Int a, Int b, Int c, Int t0, Int t1, Int t2) {
    Int down = quotient(height + t1 - 1, t1), across = quotient(width + t2 - 1, t2);
    Int all = quotient(depth + t0 - 1, t0) * down * across;
    Int item = quotient(blockIdx.x, all), tile = blockIdx.x - item * all;
    Int band = quotient(tile, across), slab = quotient(band, down);
    Int inside = threadIdx.x, line = quotient(inside, t2), plane = quotient(line, t1);
    Int z = slab * t0 + plane, y = (band - slab * down) * t1 + line - plane * t1;
    Int x = (tile - band * across) * t2 + inside - line * t2;
    if (z >= depth || y >= height || x >= width) return;
    const double *members = tiles + all + 1;
    REAL re = 0, im = 0;
    for (Int m = (Int)tiles[tile]; m < (Int)tiles[tile + 1]; m++) {
        Int sample = (Int)members[m];
        Int i = z - (Int)first[3 * sample], j = y - (Int)first[3 * sample + 1], k = x - (Int)first[3 * sample + 2];
        if (i < 0) i += depth;
        if (j < 0) j += height;
        if (k < 0) k += width;
        if (i >= a || j >= b || k >= c) continue;
        const REAL *w = weights + sample * (a + b + c), *value = samples + 2 * (item * count + sample);
        REAL weight = w[i] * w[a + j] * w[a + b + k];
        re += weight * value[0];
        im += weight * value[1];
    }
    REAL *at = grid + 2 * (((item * depth + z) * height + y) * width + x);
    at[0] = re;
    at[1] = im;
}

// to ← the product of the factors of its three axes times from, complex numbers [item, n0, n1, n2].
KERNEL(apodize, const REAL *from, REAL *to, const double *factors, Int n, Int n0, Int n1, Int n2) {
    Int index = element();
    if (index >= n) return;
    Int row = quotient(index, n2), plane = quotient(row, n1), i = plane - quotient(plane, n0) * n0;
    double factor = factors[i] * factors[n0 + row - plane * n1] * factors[n0 + n1 + index - row * n2];
    to[2 * index] = (REAL)factor * from[2 * index];
    to[2 * index + 1] = (REAL)factor * from[2 * index + 1];
}
