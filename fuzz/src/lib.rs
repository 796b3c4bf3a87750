//! What the targets share: a target is a function of bytes that panics where a property does not hold.

/// Makes a program of a target: of libFuzzer with the feature `libfuzzer`, else one that runs files.
#[cfg(feature = "libfuzzer")]
#[macro_export]
macro_rules! target {
    (|$data:ident| $body:block) => {
        $crate::libfuzzer_sys::fuzz_target!(|$data: &[u8]| $body);
    };
}

/// Makes a program of a target: of libFuzzer with the feature `libfuzzer`, else one that runs files.
#[cfg(not(feature = "libfuzzer"))]
#[macro_export]
macro_rules! target {
    (|$data:ident| $body:block) => {
        fn main() -> std::process::ExitCode {
            $crate::replay::run(|$data: &[u8]| $body)
        }
    };
}

#[cfg(feature = "libfuzzer")]
#[doc(hidden)]
pub use libfuzzer_sys;

mod input;
#[cfg(not(feature = "libfuzzer"))]
pub mod replay;

pub use input::Input;
