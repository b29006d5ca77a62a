//! The layers whose policies are reported, each for itself.

use ambit_xds::ResourceType;

/// A layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layer {
    /// Of agents, and of waypoints for what they connect to.
    #[default]
    Four,
    /// Of waypoints.
    Seven,
}

impl Layer {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Four, Self::Seven];
}

/// One thing for each layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers<T> {
    /// What agents enforce.
    pub four: T,
    /// What waypoints enforce.
    pub seven: T,
}

/// The policies of each layer as proxies are sent them.
pub const LAYERS: Layers<ResourceType> =
    Layers { four: ResourceType::Authorization, seven: ResourceType::HttpPolicy };

impl<T> Layers<T> {
    /// That of one.
    pub fn of(&self, layer: Layer) -> &T {
        match layer {
            Layer::Four => &self.four,
            Layer::Seven => &self.seven,
        }
    }

    /// Each changed.
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> Layers<U> {
        Layers { four: change(self.four), seven: change(self.seven) }
    }

    /// Each with the other's of its layer.
    pub fn zip<U>(self, other: Layers<U>) -> Layers<(T, U)> {
        Layers { four: (self.four, other.four), seven: (self.seven, other.seven) }
    }

    /// A look at each.
    pub fn as_ref(&self) -> Layers<&T> {
        Layers { four: &self.four, seven: &self.seven }
    }
}
