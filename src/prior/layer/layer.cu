// Layers of maps [image, pixel, channel]: group normalisation with scale, shift and SiLU, and what a convolution multiplies.

// Partial sums over `chunk` pixels of Σ x and Σ x² of every channel: partial[image, piece, channel, 2]. A block takes one
// piece; its threads run along the channels, so that neighbours read neighbours.
KERNEL(channel_sums, const REAL *x, double *partial, Int pixels, Int channels, Int chunk, Int pieces) {
    Int image = quotient(blockIdx.x, pieces), piece = blockIdx.x - image * pieces;
    Int begin = piece * chunk, end = at_most(begin + chunk, pixels);
    for (Int c = threadIdx.x; c < channels; c += BLOCK) {
        double sum = 0, square = 0;
        for (Int p = begin; p < end; p++) {
            double v = (double)x[(image * pixels + p) * channels + c];
            sum += v;
            square += v * v;
        }
        double *to = partial + 2 * ((Int)blockIdx.x * channels + c);
        to[0] = sum;
        to[1] = square;
    }
}

// statistics[image, group] = mean and 1/√(variance + ε); a block each.
KERNEL(statistics, const double *partial, double *statistics, Int pixels, Int channels, Int pieces, Int groups,
       double epsilon) {
    Int image = quotient(blockIdx.x, groups), group = blockIdx.x - image * groups, width = quotient(channels, groups);
    double sum = 0, square = 0;
    for (Int i = threadIdx.x; i < pieces * width; i += BLOCK) {
        Int piece = quotient(i, width), c = group * width + i - piece * width;
        const double *from = partial + 2 * ((image * pieces + piece) * channels + c);
        sum += from[0];
        square += from[1];
    }
    sum = block_sum(sum);
    square = block_sum(square);
    if (threadIdx.x != 0) return;
    double count = (double)(pixels * width), mean = sum / count, variance = square / count - mean * mean;
    statistics[2 * (Int)blockIdx.x] = mean;
    statistics[2 * (Int)blockIdx.x + 1] = 1 / sqrt((variance > 0 ? variance : 0) + epsilon);
}

// out ← γ x̂ + β, or SiLU of that; γ and β [image, channel].
KERNEL(normalise, const REAL *x, const REAL *gamma, const REAL *beta, REAL *out, const double *statistics, Int n,
       Int pixels, Int channels, Int groups, Int silu) {
    Int i = element();
    if (i >= n) return;
    Int pixel = quotient(i, channels), c = i - pixel * channels, image = quotient(pixel, pixels);
    const double *s = statistics + 2 * (image * groups + quotient(c * groups, channels));
    REAL unit = (x[i] - (REAL)s[0]) * (REAL)s[1];
    REAL y = gamma[image * channels + c] * unit + beta[image * channels + c];
    out[i] = silu ? y / (1 + exp(-y)) : y;
}

// What the kernels of a convolution see: out[image, row, column, tap, channel] = x[image, row · stride + tap row − before, …,
// channel], 0 outside; `size` × `size` taps.
KERNEL(columns, const REAL *x, REAL *out, Int n, Int height, Int width, Int channels, Int rows, Int cols, Int size,
       Int stride, Int before) {
    Int i = element();
    if (i >= n) return;
    Int rest = quotient(i, channels), c = i - rest * channels;
    Int pixel = quotient(rest, size * size), tap = rest - pixel * size * size;
    Int line = quotient(pixel, cols), image = quotient(line, rows), ky = quotient(tap, size);
    Int y = (line - image * rows) * stride + ky - before, column = (pixel - line * cols) * stride + tap - ky * size - before;
    bool inside = y >= 0 && y < height && column >= 0 && column < width;
    out[i] = inside ? x[((image * height + y) * width + column) * channels + c] : (REAL)0;
}
