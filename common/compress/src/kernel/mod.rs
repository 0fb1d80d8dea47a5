//! The loops over values. Each is written once, as plain Rust over slices: that is its definition. On x86-64 the same
//! source is compiled a second time with AVX2 and chosen at run time; nothing in it depends on the order of additions of
//! floats, so both give the same bits: the unit tests here hold them to each other, and `tests/codec.rs` the chosen one to an
//! independent oracle.
//!
//! Arithmetic on payloads is wrapping by name: `overflow-checks` stay on in release builds, and a check for each value
//! would cost the vectorisation.

/// Defines a kernel: `$name` runs `$body` with AVX2 where the processor has it. `$body` has to be `#[inline(always)]` to be
/// compiled into each, and may take a constant (`body::<4>`).
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident / $body:ident $(::<$constant:literal>)? ($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn wide($($arg: $type),*) $(-> $result)? {
                    $body$(::<$constant>)?($($arg),*)
                }
                if $crate::kernel::wide_available() {
                    #[allow(unsafe_code, reason = "calling code compiled for features that the compiler cannot assume")]
                    // SAFETY: the line above has just found avx2, fma and f16c on this processor.
                    return unsafe { wide($($arg),*) };
                }
            }
            $body$(::<$constant>)?($($arg),*)
        }
    };
}

pub(crate) mod bits;
pub(crate) mod eden;
pub(crate) mod float;
pub(crate) mod hadamard;
pub(crate) mod half;
pub(crate) mod pack;
pub(crate) mod quantised;
pub(crate) mod rounding;
pub(crate) mod sparse;

/// Whether this processor runs the AVX2 build of the kernels. The answer is cached by the standard library.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn wide_available() -> bool {
    #[cfg(test)]
    if tests::NARROW.get() {
        return false;
    }
    std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("fma")
        && std::arch::is_x86_feature_detected!("f16c")
}

#[cfg(test)]
mod tests;
