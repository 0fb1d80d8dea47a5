//! Networks by name.

use crate::error::SpecError;
use crate::layer::{Conv, Layer, Linear, Padding, Pool};

/// The names of the presets.
pub const NAMES: [&str; 5] = ["fedavg-2nn", "fedavg-cnn", "lenet-300-100", "lenet-5", "digits-cnn"];

/// The layers of the preset `name`; all have ten classes.
///
/// - `fedavg-2nn`: two hidden layers of 200 (McMahan et al. 2017, §3; 199,210 parameters for 28×28 images).
/// - `fedavg-cnn`: 5×5×32, pool, 5×5×64, pool, 512 (same place; 1,663,370 parameters for 28×28 images).
/// - `lenet-300-100`: two hidden layers (LeCun et al. 1998; 266,610 parameters for 28×28 images).
/// - `lenet-5`: Caffe's version, 20/50/500 (431,080 parameters for 28×28 images).
/// - `digits-cnn`: a small network for 8×8 digits: 3×3×16, 3×3×32, pool, 64 (38,282 parameters).
///
/// # Errors
/// [`SpecError::Value`] lists the names when `name` is none of them.
pub fn layers(name: &str) -> Result<Vec<Layer>, SpecError> {
    let linear = |out| Layer::Linear(Linear { out, bias: true, binary: false });
    let conv =
        |out, kernel, padding| Layer::Conv2d(Conv { out, kernel, stride: 1, padding, bias: true, binary: false });
    let pool = || Layer::MaxPool2d(Pool { size: 2, stride: 2 });
    let dense =
        |first, second| vec![Layer::Flatten, linear(first), Layer::Relu, linear(second), Layer::Relu, linear(10)];
    Ok(match name {
        "fedavg-2nn" => dense(200, 200),
        "lenet-300-100" => dense(300, 100),
        "fedavg-cnn" => vec![
            conv(32, 5, Padding::Same),
            Layer::Relu,
            pool(),
            conv(64, 5, Padding::Same),
            Layer::Relu,
            pool(),
            Layer::Flatten,
            linear(512),
            Layer::Relu,
            linear(10),
        ],
        "lenet-5" => vec![
            conv(20, 5, Padding::Valid),
            pool(),
            conv(50, 5, Padding::Valid),
            pool(),
            Layer::Flatten,
            linear(500),
            Layer::Relu,
            linear(10),
        ],
        "digits-cnn" => vec![
            conv(16, 3, Padding::Same),
            Layer::Relu,
            conv(32, 3, Padding::Same),
            Layer::Relu,
            pool(),
            Layer::Flatten,
            linear(64),
            Layer::Relu,
            linear(10),
        ],
        _ => {
            return Err(SpecError::value(
                "model.preset",
                format!("{name:?}"),
                format!("expected one of {}", NAMES.join(", ")),
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::infer;
    use crate::task::TaskKind;

    #[test]
    fn each_preset_has_the_parameters_that_its_paper_counts() {
        for (name, side, count) in [
            ("fedavg-2nn", 28, 199_210),
            ("fedavg-cnn", 28, 1_663_370),
            ("lenet-300-100", 28, 266_610),
            ("lenet-5", 28, 431_080),
            ("digits-cnn", 8, 38_282),
        ] {
            let layers = layers(name).expect("a preset");
            let network = infer(TaskKind::Classification, &[1, side, side], &layers).expect("a network");
            assert_eq!(network.manifest.len(), count, "{name}");
            assert_eq!(network.output, [10]);
        }
    }

    #[test]
    fn an_unknown_preset_is_told_the_known_ones() {
        let error = layers("lenet").expect_err("unknown").to_string();
        assert!(error.contains("\"lenet\"") && error.contains("lenet-300-100"), "{error}");
    }
}
