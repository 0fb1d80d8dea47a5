//! How a closed list of reasons is written down: a variant, its stable number, and what is wrong and what to do.

macro_rules! reasons {
    ($(#[$doc_of_list:meta])* $list:ident: $($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        $(#[$doc_of_list])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum $list { $($(#[$doc])* $name = $code),* }

        impl $list {
            /// Every reason there is, in the order of their positions.
            pub const ALL: &[$list] = &[$($list::$name),*];

            /// What is wrong and what to do, in words for the operator.
            pub fn text(self) -> &'static str {
                match self { $($list::$name => $text),* }
            }

            /// The stable name.
            pub fn name(self) -> &'static str {
                match self { $($list::$name => stringify!($name)),* }
            }

            /// The stable number.
            pub fn code(self) -> u16 {
                self as u16
            }
        }
    };
}
