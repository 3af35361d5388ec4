// y = a + b + c in one pass: 3 reads and a write. Compiled when a benchmark starts; see bound.py.
#include <stddef.h>

#ifdef __AVX2__
#include <immintrin.h>

// Writes past the cache: y is not read before it is overwritten. n is rounded down to 32 bytes.
void fused_streaming(char* y, const char* a, const char* b, const char* c, size_t n) {
  for (size_t i = 0; i + 32 <= n; i += 32) {
    __m256i sum = _mm256_add_epi32(_mm256_loadu_si256((const __m256i*)(a + i)),
                                   _mm256_loadu_si256((const __m256i*)(b + i)));
    sum = _mm256_add_epi32(sum, _mm256_loadu_si256((const __m256i*)(c + i)));
    _mm256_stream_si256((__m256i*)(y + i), sum);
  }
  _mm_sfence();
}
#endif

void fused(int* restrict y, const int* a, const int* b, const int* c, size_t n) {
  for (size_t i = 0; i < n / sizeof *y; i++) y[i] = a[i] + b[i] + c[i];
}
