//! The loops over values. Each has a definition in plain Rust, which is what runs where nothing better is known (on ARM the
//! compiler vectorises it), and builds for wider instructions that [`crate::isa::Isa`] allows.
//!
//! Integer and binary kernels give the same bits in every build. Float kernels add in the same order in every build, but some
//! fuse the product with the addition and some do not, so they may differ by roundings. The conformance suite in `tests.rs`
//! holds all of them to their definitions.
//!
//! NaN: features are refused when they are not finite, so a NaN can only come of an overflow. Float kernels carry it on;
//! comparisons, those of pools among them, may drop it; as an integer level it counts as the lowest.

/// Compiles `$body`, an `#[inline(always)]` function in plain Rust, a second time for AVX2 and picks by `isa`.
macro_rules! compiled_twice {
    ($(#[$doc:meta])* $name:ident / $body:ident ($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?) => {
        $(#[$doc])*
        pub(crate) fn $name(isa: $crate::isa::Isa, $($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c,popcnt,bmi1")]
                fn wide($($arg: $type),*) $(-> $result)? {
                    $body($($arg),*)
                }
                if isa.level() >= $crate::isa::Level::Avx2 {
                    #[allow(unsafe_code, reason = "calling code compiled for features that the compiler cannot assume")]
                    // SAFETY: an `Isa` of this level exists only where these features were found.
                    return unsafe { wide($($arg),*) };
                }
            }
            let _ = isa;
            $body($($arg),*)
        }
    };
}

pub(crate) mod attention;
pub(crate) mod binary;
pub(crate) mod convolution;
pub(crate) mod dense;
pub(crate) mod integer;
pub(crate) mod pool;
pub(crate) mod sparse;
pub(crate) mod value;
pub(crate) mod window;

#[cfg(test)]
mod tests;
