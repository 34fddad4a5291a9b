// totals[row] = the sum of partial[row][..parts]; one block a row.
KERNEL(totals, const double *partial, Int parts, double *totals) {
    double sum = 0;
    for (Int i = threadIdx.x; i < parts; i += BLOCK) sum += partial[(Int)blockIdx.x * parts + i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) totals[blockIdx.x] = sum;
}
