//! Candidates without training: binary16, power-of-two fixed point, integers with calibrated activations.

use starling_compress::method::quantise;
use starling_compress::{Compressed, Release};

use crate::error::SearchError;
use crate::method::Method;
use crate::session::{Rest, Session};

/// The widths of fixed point that a search for everything tries.
const FIXED_BITS: [u8; 2] = [8, 6];

pub(crate) fn run(session: &mut Session<'_>) -> Result<(), SearchError> {
    let method = session.settings.method;
    session.observer.stage("quantise without training", 0);
    if method.includes(Method::Half) {
        half(session)?;
    }
    if method == Method::Float {
        float(session)?;
    }
    match method {
        Method::Auto => FIXED_BITS.into_iter().try_for_each(|bits| fixed(session, bits))?,
        Method::Fixed(bits) => fixed(session, bits)?,
        _ => {}
    }
    for bits in [8, 4] {
        if method.includes(Method::Integer(bits)) {
            integer(session, bits)?;
        }
    }
    Ok(())
}

fn half(session: &mut Session<'_>) -> Result<(), SearchError> {
    let release = session.pack(&session.original, Rest::Half, |_, _, values| Compressed {
        kept: None,
        values: quantise::half(values),
    })?;
    session.add(Method::Half, "f16".into(), &release)?;
    Ok(())
}

/// The full model as it is.
pub(super) fn float(session: &mut Session<'_>) -> Result<(), SearchError> {
    let release = Release::float(session.plan, &session.original.parameters);
    session.add(Method::Float, "f32".into(), &release)?;
    Ok(())
}

fn fixed(session: &mut Session<'_>, bits: u8) -> Result<(), SearchError> {
    let release = session.pack(&session.original, Rest::Half, |_, _, values| Compressed {
        kept: None,
        values: quantise::fixed_point(values, bits),
    })?;
    session.add(Method::Fixed(bits), format!("fixed:{bits}"), &release)?;
    Ok(())
}

/// Integers of `bits` bits, by the search's granularity.
fn integer(session: &mut Session<'_>, bits: u8) -> Result<(), SearchError> {
    let model = session.original.clone();
    let release = session.integers(&model, bits, |_, values| Compressed { kept: None, values })?;
    session.add(Method::Integer(bits), format!("int{bits}"), &release)?;
    Ok(())
}
