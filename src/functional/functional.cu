// Proximal maps and penalties: maps and sums over elements with columns, and over groups.

DEVICE REAL smallest_normal() { return sizeof(REAL) == 8 ? (REAL)2.2250738585072014e-308 : (REAL)1.17549435e-38f; }

// A column is a constant, or numbers that repeat.
#define COLUMN(k) const REAL *values##k, Int period##k, double constant##k
#define AT(k, i) (period##k ? values##k[(i) - quotient(i, period##k) * period##k] : (REAL)constant##k)

// x ← f(x, columns c, d, e) with constants p, q.
#define MAP(name, f)                                                                                                    \
    KERNEL(map_##name, REAL *out, Int n, double first, double second, COLUMN(0), COLUMN(1), COLUMN(2)) {                \
        Int i = element();                                                                                              \
        if (i >= n) return;                                                                                             \
        REAL x = out[i], p = (REAL)first, q = (REAL)second, c = AT(0, i), d = AT(1, i), e = AT(2, i);                   \
        out[i] = f;                                                                                                     \
    }

// One sum: Σ f(x, columns).
#define SUM(name, f)                                                                                                    \
    KERNEL(sum_##name, const REAL *values, double first, double second, COLUMN(0), COLUMN(1), COLUMN(2), Int items,     \
           Int size, Int parts, double *partial) {                                                                      \
        Part part = part_of(size, parts);                                                                               \
        double sum = 0;                                                                                                 \
        for (Int i = part.begin + threadIdx.x; i < part.end; i += BLOCK) {                                              \
            REAL x = values[i], p = (REAL)first, q = (REAL)second, c = AT(0, i), d = AT(1, i), e = AT(2, i);            \
            sum += (double)(f);                                                                                         \
        }                                                                                                               \
        give(partial, 0, items, parts, part, sum);                                                                      \
    }

DEVICE REAL soft(REAL x, REAL t) { return largest(x - t, 0) + least(x + t, 0); }
DEVICE REAL within(REAL x, REAL limit) { return least(largest(x, -limit), limit); }

MAP(soft, soft(x, p * c * d))
MAP(clip, within(x, p * c))
MAP(distance, (x + p * e * d * c) / (1 + p * e * d))
MAP(distance_conjugate, p * d * (x - e * c) / (p * d + e))
SUM(outside, x >= p && x <= q ? 0 : 1)
SUM(magnitude, c * fabs(x))
SUM(distance, d * (x - c) * (x - c))

// The norm of group i: of the elements i·parts … of every plane of an item.
DEVICE REAL norm_of(const REAL *item, Int i, Int planes, Int plane, Int parts) {
    REAL sum = 0;
    for (Int k = 0; k < planes; k++)
        for (Int q = 0; q < parts; q++) {
            REAL x = item[k * plane + i * parts + q];
            sum += x * x;
        }
    return sqrt(sum);
}

// Groups shrink to max(n − limit, n corner/(corner + limit)), or are projected to limit·min(1, n/(limit + excess)).
KERNEL(rescale, REAL *x, Int n, Int planes, Int plane, Int parts, Int project, double limit, double corner,
       const REAL *weights, Int weighted, const REAL *steps, Int stepped) {
    Int index = element();
    if (index >= n) return;
    Int groups = quotient(plane, parts), item = quotient(index, groups), i = index - item * groups;
    REAL *own = x + item * planes * plane;
    REAL norm = norm_of(own, i, planes, plane, parts), tiny = smallest_normal();
    for (Int q = 0; q < parts; q++) {
        Int e = i * parts + q;
        REAL bound = (REAL)limit * (weighted ? weights[e] : 1), factor;
        REAL step = stepped ? steps[e] : 1;
        if (project) {
            factor = bound / largest(largest(norm, bound + (REAL)corner * step), tiny);
        } else {
            bound *= step;
            REAL low = corner > 0 ? (REAL)corner / ((REAL)corner + bound) : 0;
            factor = largest((norm - bound) / largest(norm, tiny), low);
        }
        for (Int k = 0; k < planes; k++) own[k * plane + e] *= factor;
    }
}

// q = y + σ v projected on |q| <= limit, and y moved towards it; two sums: of the squares of the step and of the
// projection, over σ. `size` counts groups.
KERNEL(relax_dual, const REAL *v, REAL *y, Int planes, Int plane, Int parts, double limit, double excess, double sigma,
       double rho, Int items, Int size, Int count, double *partial) {
    Part part = part_of(size, count);
    double moved = 0, total = 0;
    REAL bound = (REAL)limit, tiny = smallest_normal();
    for (Int g = part.begin + threadIdx.x; g < part.end; g += BLOCK) {
        Int first = part.item * planes * plane + (g - part.item * size) * parts;
        REAL norm = 0;
        for (Int k = 0; k < planes; k++)
            for (Int e = first + k * plane; e < first + k * plane + parts; e++) {
                REAL q = y[e] + (REAL)sigma * v[e];
                norm += q * q;
            }
        REAL factor = bound / largest(largest(sqrt(norm), bound + (REAL)excess), tiny);
        for (Int k = 0; k < planes; k++)
            for (Int e = first + k * plane; e < first + k * plane + parts; e++) {
                REAL next = factor * (y[e] + (REAL)sigma * v[e]), off = next - y[e];
                moved += (double)(off * off);
                total += (double)(next * next);
                y[e] += (REAL)rho * off;
            }
    }
    give(partial, 0, items, count, part, moved / sigma);
    give(partial, 1, items, count, part, total / sigma);
}

// One sum: Σ w · Huber(norm) over groups; `size` counts groups.
KERNEL(total, const REAL *x, Int planes, Int plane, Int parts, double corner, const REAL *weights, Int weighted, Int items,
       Int size, Int count, double *partial) {
    Part part = part_of(size, count);
    double sum = 0;
    REAL delta = (REAL)corner;
    for (Int g = part.begin + threadIdx.x; g < part.end; g += BLOCK) {
        Int i = g - part.item * size;
        REAL norm = norm_of(x + part.item * planes * plane, i, planes, plane, parts);
        if (delta > 0) norm = norm <= delta ? (REAL)0.5 * norm * norm / delta : norm - (REAL)0.5 * delta;
        if (weighted) norm *= weights[i * parts];
        sum += (double)norm;
    }
    give(partial, 0, items, count, part, sum);
}
