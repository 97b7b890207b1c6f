//! The menu as a StatusNotifierItem. Adds nothing to the model but what the protocols want:
//! labels without access keys, a tooltip without markup.

use ksni::menu::{StandardItem, SubMenu};
use ksni::{Icon, MenuItem, ToolTip};
use tokio::sync::mpsc;
use toktra_menu::{Action, Item, MenuModel};

/// What the desktop draws.
#[derive(Clone, Debug)]
pub struct Tray {
    model: MenuModel,
    pixmaps: Vec<Icon>,
    clicks: mpsc::Sender<Action>,
}

impl Tray {
    /// Draws a model; clicks go to `clicks`.
    pub fn new(model: MenuModel, clicks: mpsc::Sender<Action>) -> Self {
        Self { pixmaps: pixmaps(&model), model, clicks }
    }

    /// Draws another model.
    pub fn show(&mut self, model: MenuModel) {
        if model.icon != self.model.icon {
            self.pixmaps = pixmaps(&model);
        }
        self.model = model;
    }
}

fn pixmaps(model: &MenuModel) -> Vec<Icon> {
    let icon = |pixmap: toktra_menu::Pixmap| {
        let size = i32::from(pixmap.size);
        Icon { width: size, height: size, data: pixmap.argb }
    };
    model.icon.pixmaps().into_iter().map(icon).collect()
}

impl ksni::Tray for Tray {
    /// There is nothing but the menu.
    const MENU_ON_ACTIVATE: bool = true;

    fn id(&self) -> String {
        "toktra".to_owned()
    }

    /// Read out by screen readers, and shown where there are no icons.
    fn title(&self) -> String {
        format!("Toktra. {}", self.model.headline)
    }

    fn status(&self) -> ksni::Status {
        if self.model.state.needs_attention() { ksni::Status::NeedsAttention } else { ksni::Status::Active }
    }

    fn icon_pixmap(&self) -> Vec<Icon> {
        self.pixmaps.clone()
    }

    fn attention_icon_pixmap(&self) -> Vec<Icon> {
        self.pixmaps.clone()
    }

    fn tool_tip(&self) -> ToolTip {
        ToolTip {
            title: plain(&self.model.headline),
            description: plain(&self.model.tooltip.join("\n")),
            ..ToolTip::default()
        }
    }

    fn menu(&self) -> Vec<MenuItem<Self>> {
        items(&self.model.items)
    }
}

fn items(model: &[Item]) -> Vec<MenuItem<Tray>> {
    model
        .iter()
        .map(|item| match item {
            Item::Separator => MenuItem::Separator,
            Item::Line(label) => {
                StandardItem { label: keyless(label), enabled: false, ..StandardItem::default() }.into()
            }
            Item::Submenu { label, items: inner } => {
                SubMenu { label: keyless(label), submenu: items(inner), ..SubMenu::default() }.into()
            }
            Item::Command { label, action } => command(label, action.clone()).into(),
        })
        .collect()
}

fn command(label: &str, action: Action) -> StandardItem<Tray> {
    StandardItem {
        label: keyless(label),
        activate: Box::new(move |tray: &mut Tray| {
            // Whoever clicks faster than dialogs open has clicked enough.
            let _ = tray.clicks.try_send(action.clone());
        }),
        ..StandardItem::default()
    }
}

/// An underscore marks an access key unless it is doubled (com.canonical.dbusmenu).
fn keyless(label: &str) -> String {
    label.replace('_', "__")
}

/// Some desktops read a tooltip as markup and some do not: what markup is made of is replaced.
fn plain(text: &str) -> String {
    text.replace('<', "‹").replace('>', "›").replace('&', "+")
}
