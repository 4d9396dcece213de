// What naga's shaders use of the Metal Shading Language, in CUDA C++: as much of it as they need.

#pragma once

#define DEVICE __device__ __forceinline__

typedef unsigned int uint;

namespace metal {

using ::uint;

struct bool2 { bool x, y; };
struct bool4 {
    bool x, y, z, w;
    bool4() = default;
    DEVICE bool4(bool x, bool y, bool z, bool w) : x(x), y(y), z(z), w(w) {}
    DEVICE explicit bool4(bool all) : x(all), y(all), z(all), w(all) {}
};
struct uint3 { uint x, y, z; };

struct __align__(8) uint2 {
    uint x, y;
    uint2() = default;
    DEVICE uint2(uint x, uint y) : x(x), y(y) {}
    DEVICE explicit uint2(uint all) : x(all), y(all) {}
};

struct __align__(16) uint4 {
    uint x, y, z, w;
    uint4() = default;
    DEVICE uint4(uint x, uint y, uint z, uint w) : x(x), y(y), z(z), w(w) {}
    DEVICE explicit uint4(uint all) : x(all), y(all), z(all), w(all) {}
};

struct __align__(8) float2 {
    float x, y;
    float2() = default;
    DEVICE float2(float x, float y) : x(x), y(y) {}
    DEVICE explicit float2(float all) : x(all), y(all) {}
};

struct float3 {
    float x, y, z;
    float3() = default;
    DEVICE float3(float x, float y, float z) : x(x), y(y), z(z) {}
    DEVICE explicit float3(float all) : x(all), y(all), z(all) {}
};

struct __align__(16) float4 {
    float x, y, z, w;
    float4() = default;
    DEVICE float4(float x, float y, float z, float w) : x(x), y(y), z(z), w(w) {}
    DEVICE float4(float2 xy, float2 zw) : x(xy.x), y(xy.y), z(zw.x), w(zw.y) {}
    DEVICE explicit float4(float all) : x(all), y(all), z(all), w(all) {}
    DEVICE float& operator[](uint i) { return (&x)[i]; }
    DEVICE const float& operator[](uint i) const { return (&x)[i]; }
    // As members of a union they make the compiler crash.
    DEVICE float2 xy() const { return float2(x, y); }
    DEVICE float2 zw() const { return float2(z, w); }
};

struct float4x4 {
    float4 columns[4];
    float4x4() = default;
    DEVICE float4x4(float4 a, float4 b, float4 c, float4 d) : columns{a, b, c, d} {}
    DEVICE float4& operator[](uint i) { return columns[i]; }
    DEVICE const float4& operator[](uint i) const { return columns[i]; }
};

#define BOTH(RESULT, NAME, TYPE, OP) \
    DEVICE RESULT NAME(TYPE a, TYPE b) { return RESULT{OP(a.x, b.x), OP(a.y, b.y)}; }
#define ALL(RESULT, NAME, TYPE, OP) \
    DEVICE RESULT NAME(TYPE a, TYPE b) { return RESULT{OP(a.x, b.x), OP(a.y, b.y), OP(a.z, b.z), OP(a.w, b.w)}; }
#define ADD(a, b) ((a) + (b))
#define SUBTRACT(a, b) ((a) - (b))
#define MULTIPLY(a, b) ((a) * (b))
#define DIVIDE(a, b) ((a) / (b))
#define AND(a, b) ((a) & (b))
#define OR(a, b) ((a) | (b))
#define LEFT(a, b) ((a) << (b))
#define RIGHT(a, b) ((a) >> (b))
#define LESS(a, b) ((a) < (b))
#define GREATER(a, b) ((a) > (b))
#define GREATER_EQUAL(a, b) ((a) >= (b))

BOTH(float2, operator+, float2, ADD)
BOTH(float2, operator-, float2, SUBTRACT)
BOTH(float2, operator*, float2, MULTIPLY)
DEVICE float3 operator+(float3 a, float3 b) { return float3(a.x + b.x, a.y + b.y, a.z + b.z); }
ALL(float4, operator+, float4, ADD)
ALL(float4, operator-, float4, SUBTRACT)
ALL(float4, operator*, float4, MULTIPLY)
ALL(float4, operator/, float4, DIVIDE)
DEVICE float4 operator*(float a, float4 b) { return float4(a) * b; }
DEVICE float4 operator*(float4 a, float b) { return a * float4(b); }
DEVICE float4 operator+(float4 a, float b) { return a + float4(b); }
BOTH(uint2, operator+, uint2, ADD)
BOTH(uint2, operator&, uint2, AND)
BOTH(uint2, operator|, uint2, OR)
BOTH(uint2, operator<<, uint2, LEFT)
BOTH(uint2, operator>>, uint2, RIGHT)
BOTH(bool2, operator<, uint2, LESS)
BOTH(bool2, operator>, uint2, GREATER)
BOTH(bool2, operator>=, uint2, GREATER_EQUAL)
ALL(uint4, operator+, uint4, ADD)
ALL(uint4, operator&, uint4, AND)
ALL(uint4, operator|, uint4, OR)
ALL(uint4, operator<<, uint4, LEFT)
ALL(uint4, operator>>, uint4, RIGHT)
ALL(bool4, operator<, uint4, LESS)
ALL(bool4, operator>, uint4, GREATER)
ALL(bool4, operator>=, uint4, GREATER_EQUAL)

ALL(bool4, operator<, float4, LESS)
ALL(bool4, operator>=, float4, GREATER_EQUAL)
ALL(bool4, operator|, bool4, OR)

// The size of a buffer whose bounds the driver checks, and not the shader.
struct Unbounded {};

DEVICE uint min(uint index, Unbounded) { return index; }
DEVICE uint min(uint a, uint b) { return a < b ? a : b; }
DEVICE uint max(uint a, uint b) { return a > b ? a : b; }
DEVICE float min(float a, float b) { return fminf(a, b); }
DEVICE float max(float a, float b) { return fmaxf(a, b); }
DEVICE float abs(float a) { return fabsf(a); }
DEVICE float sqrt(float a) { return sqrtf(a); }
DEVICE float exp(float a) { return __expf(a); }
DEVICE float fma(float a, float b, float c) { return fmaf(a, b, c); }
ALL(uint4, min, uint4, min)
ALL(uint4, max, uint4, max)
ALL(float4, min, float4, fminf)
ALL(float4, max, float4, fmaxf)
BOTH(float2, min, float2, fminf)
BOTH(float2, max, float2, fmaxf)
DEVICE float2 clamp(float2 a, float2 low, float2 high) { return min(max(a, low), high); }
DEVICE float4 abs(float4 a) { return float4(fabsf(a.x), fabsf(a.y), fabsf(a.z), fabsf(a.w)); }
DEVICE float4 sqrt(float4 a) { return float4(sqrtf(a.x), sqrtf(a.y), sqrtf(a.z), sqrtf(a.w)); }
DEVICE float4 log(float4 a) { return float4(__logf(a.x), __logf(a.y), __logf(a.z), __logf(a.w)); }
DEVICE float4 exp(float4 a) { return float4(__expf(a.x), __expf(a.y), __expf(a.z), __expf(a.w)); }
DEVICE float4 fma(float4 a, float4 b, float4 c) {
    return float4(fmaf(a.x, b.x, c.x), fmaf(a.y, b.y, c.y), fmaf(a.z, b.z, c.z), fmaf(a.w, b.w, c.w));
}
DEVICE float dot(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }
DEVICE float4x4 transpose(float4x4 m) {
    return float4x4(
        float4(m[0].x, m[1].x, m[2].x, m[3].x), float4(m[0].y, m[1].y, m[2].y, m[3].y),
        float4(m[0].z, m[1].z, m[2].z, m[3].z), float4(m[0].w, m[1].w, m[2].w, m[3].w)
    );
}

template <class T> DEVICE T select(T no, T yes, bool condition) { return condition ? yes : no; }
#define SELECT2(TYPE) \
    DEVICE TYPE select(TYPE no, TYPE yes, bool2 c) { return TYPE(c.x ? yes.x : no.x, c.y ? yes.y : no.y); }
#define SELECT4(TYPE) \
    DEVICE TYPE select(TYPE no, TYPE yes, bool4 c) { \
        return TYPE(c.x ? yes.x : no.x, c.y ? yes.y : no.y, c.z ? yes.z : no.z, c.w ? yes.w : no.w); \
    }
SELECT2(float2)
SELECT2(uint2)
SELECT4(float4)
SELECT4(uint4)

#define SHUFFLE(INSTRUCTION, a, lane) \
    float4(INSTRUCTION(~0u, a.x, lane), INSTRUCTION(~0u, a.y, lane), INSTRUCTION(~0u, a.z, lane), INSTRUCTION(~0u, a.w, lane))
DEVICE float4 simd_shuffle_xor(float4 a, uint mask) { return SHUFFLE(__shfl_xor_sync, a, mask); }
DEVICE float4 simd_shuffle(float4 a, uint lane) { return SHUFFLE(__shfl_sync, a, lane); }

enum class mem_flags { mem_threadgroup };
DEVICE void threadgroup_barrier(mem_flags) { __syncthreads(); }

// Two halves as they lie in memory, and what they are in f32.
struct half2 {
    uint bits;
    half2() = default;
    DEVICE explicit half2(float2 a) {
        asm("{ .reg .b16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h}; }"
            : "=r"(bits) : "f"(a.x), "f"(a.y));
    }
    DEVICE operator float2() const {
        float2 a;
        asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
            : "=f"(a.x), "=f"(a.y) : "r"(bits));
        return a;
    }
};

template <class To, class From> DEVICE To as_type(From from) {
    static_assert(sizeof(To) == sizeof(From), "only the type changes");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

} // namespace metal
