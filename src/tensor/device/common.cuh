// What every program begins with. REAL is float or double.
#ifndef KERNEL
typedef long long Int;
#define KERNEL(name, ...) extern "C" __global__ void name(__VA_ARGS__)
#endif

#define DEVICE static __device__ inline
#define BLOCK 256
// Elements that a block adds up.
#define PART 4096

// The number of this thread.
DEVICE Int element() { return (Int)blockIdx.x * BLOCK + threadIdx.x; }

// a / b of numbers that aren't negative; 64-bit divisions are slow.
DEVICE Int quotient(Int a, Int b) {
    if (((a | b) >> 32) == 0) return (Int)((unsigned)a / (unsigned)b);
    return a / b;
}

DEVICE REAL largest(REAL a, REAL b) { return a > b ? a : b; }
DEVICE REAL least(REAL a, REAL b) { return a < b ? a : b; }
DEVICE Int at_most(Int a, Int b) { return a < b ? a : b; }

// The sum of a value over the threads of the block, for all of them, in a fixed order.
DEVICE double block_sum(double value) {
    __shared__ double sums[BLOCK];
    __syncthreads();
    sums[threadIdx.x] = value;
    __syncthreads();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    return sums[0];
}

// Which elements this block adds up: i = begin + threadIdx.x, in steps of BLOCK, below end, of the whole array.
struct Part {
    Int item, part, begin, end;
};

DEVICE Part part_of(Int size, Int parts) {
    Part p;
    p.item = quotient(blockIdx.x, parts);
    p.part = blockIdx.x - p.item * parts;
    p.begin = p.item * size + p.part * PART;
    p.end = at_most(p.begin + PART, (p.item + 1) * size);
    return p;
}

// Writes one sum of this block where `reduce` looks for it.
DEVICE void give(double *partial, Int which, Int items, Int parts, Part p, double value) {
    double sum = block_sum(value);
    if (threadIdx.x == 0) partial[(which * items + p.item) * parts + p.part] = sum;
}

// Where element p of an array [n0, n1, n2] goes when the array is moved by half its axes around their ends: so that
// index 0 comes to the middle, or back.
DEVICE Int rotated(Int p, Int n0, Int n1, Int n2, bool back) {
    Int i = quotient(p, n1 * n2), rest = p - i * n1 * n2;
    Int j = quotient(rest, n2), k = rest - j * n2;
    i += back ? n0 - n0 / 2 : n0 / 2;
    j += back ? n1 - n1 / 2 : n1 / 2;
    k += back ? n2 - n2 / 2 : n2 / 2;
    if (i >= n0) i -= n0;
    if (j >= n1) j -= n1;
    if (k >= n2) k -= n2;
    return (i * n1 + j) * n2 + k;
}
