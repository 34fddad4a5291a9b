// Standard normal numbers in pairs: Philox-4x32-10 and Box–Muller, as tensor::random has them.

DEVICE double unit(unsigned high, unsigned low) {
    unsigned long long bits = ((unsigned long long)high << 21) | (low >> 11);
    return ((double)bits + 0.5) * (1.0 / 9007199254740992.0);
}

KERNEL(normal, REAL *out, Int n, Int seed, Int stream, Int step) {
    Int pair = element();
    if (2 * pair >= n) return;
    unsigned c[4] = {(unsigned)pair, (unsigned)(pair >> 32), (unsigned)step, (unsigned)stream};
    unsigned long long bits = (unsigned long long)seed;
    unsigned key[2] = {(unsigned)bits, (unsigned)(bits >> 32)};
    for (int round = 0; round < 10; round++) {
        unsigned long long low = (unsigned long long)c[0] * 0xD2511F53u;
        unsigned long long high = (unsigned long long)c[2] * 0xCD9E8D57u;
        unsigned first = (unsigned)(high >> 32) ^ c[1] ^ key[0];
        unsigned third = (unsigned)(low >> 32) ^ c[3] ^ key[1];
        c[0] = first;
        c[1] = (unsigned)high;
        c[2] = third;
        c[3] = (unsigned)low;
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    double radius = sqrt(-2.0 * log(unit(c[0], c[1])));
    double angle = 6.283185307179586476925286766559 * unit(c[2], c[3]);
    out[2 * pair] = (REAL)(radius * cos(angle));
    if (2 * pair + 1 < n) out[2 * pair + 1] = (REAL)(radius * sin(angle));
}
