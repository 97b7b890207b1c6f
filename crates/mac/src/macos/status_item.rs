//! The status item, its menu, dialogs and notifications. Draws [`MenuModel`] and adds nothing to it.
//!
//! AppKit's objects live on the main thread, in one place; whoever has something to show posts it to the main
//! queue. A menu that is open is not replaced under the pointer: what came meanwhile is shown when it closes.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, channel};

use block2::RcBlock;
use dispatch2::DispatchQueue;
use objc2::rc::Retained;
use objc2::runtime::{AnyObject, ProtocolObject};
use objc2::{DefinedClass as _, MainThreadMarker, MainThreadOnly, define_class, msg_send, sel};
use objc2_app_kit::{
    NSAlert, NSAlertFirstButtonReturn, NSApplication, NSApplicationActivationPolicy, NSBitmapFormat,
    NSBitmapImageRep, NSDeviceRGBColorSpace, NSImage, NSMenu, NSMenuDelegate, NSMenuItem, NSStatusBar,
    NSStatusItem, NSTextField, NSVariableStatusItemLength, NSWorkspace, NSWorkspaceDidWakeNotification,
};
use objc2_foundation::{NSBundle, NSNotification, NSObject, NSObjectProtocol, NSSize, NSString};
use objc2_user_notifications::{
    UNAuthorizationOptions, UNMutableNotificationContent, UNNotificationRequest, UNUserNotificationCenter,
};
use toktra_menu::{Action, Item, MenuModel, Notice, Pixmap};

/// Width of the icon in the menu bar, in points; drawn for screens of one and of two pixels a point.
const ICON_POINTS: u16 = 18;
/// Width of a dialog's field, in points.
const FIELD_POINTS: f64 = 360.0;

thread_local! {
    /// On the main thread alone.
    static SHOWN: RefCell<Option<Shown>> = const { RefCell::new(None) };
}

struct Shown {
    item: Retained<NSStatusItem>,
    target: Retained<Target>,
    icon: Option<toktra_menu::Icon>,
    open: bool,
    waiting: Option<MenuModel>,
}

struct Clicks {
    /// By the items' tags.
    actions: RefCell<Vec<Action>>,
    clicked: Box<dyn Fn(Action)>,
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses; the class does not implement `Drop`.
    #[unsafe(super(NSObject))]
    #[thread_kind = MainThreadOnly]
    #[ivars = Clicks]
    struct Target;

    impl Target {
        #[unsafe(method(clicked:))]
        fn clicked(&self, item: &NSMenuItem) {
            let actions = self.ivars().actions.borrow();
            let action = usize::try_from(item.tag()).ok().and_then(|tag| actions.get(tag).cloned());
            drop(actions);
            if let Some(action) = action {
                (self.ivars().clicked)(action);
            }
        }
    }

    // SAFETY: a protocol without requirements.
    unsafe impl NSObjectProtocol for Target {}

    // SAFETY: the methods are those of the protocol.
    unsafe impl NSMenuDelegate for Target {
        #[unsafe(method(menuWillOpen:))]
        fn will_open(&self, _menu: &NSMenu) {
            with_shown(|shown, _| shown.open = true);
        }

        #[unsafe(method(menuDidClose:))]
        fn did_close(&self, _menu: &NSMenu) {
            // Not from within the menu that closes.
            DispatchQueue::main().exec_async(|| {
                with_shown(|shown, main| {
                    shown.open = false;
                    if let Some(model) = shown.waiting.take() {
                        shown.draw(main, &model);
                    }
                });
            });
        }
    }
);

impl Target {
    fn new(main: MainThreadMarker, clicked: Box<dyn Fn(Action)>) -> Retained<Self> {
        let clicks = Clicks { actions: RefCell::default(), clicked };
        let this = Self::alloc(main).set_ivars(clicks);
        // SAFETY: NSObject's `init`.
        unsafe { msg_send![super(this), init] }
    }
}

/// Puts the status item up and serves AppKit until the session ends. `begin` is called once it is up. Must be
/// called on the main thread.
pub fn run(
    model: &MenuModel,
    clicked: impl Fn(Action) + 'static,
    woke: impl Fn() + Send + Sync + 'static,
    begin: impl FnOnce(),
) -> Result<(), &'static str> {
    let main = MainThreadMarker::new().ok_or("the menu must run on the main thread")?;
    let app = NSApplication::sharedApplication(main);
    app.setActivationPolicy(NSApplicationActivationPolicy::Accessory);
    let item = NSStatusBar::systemStatusBar().statusItemWithLength(NSVariableStatusItemLength);
    let target = Target::new(main, Box::new(clicked));
    let mut shown = Shown { item, target, icon: None, open: false, waiting: None };
    shown.draw(main, model);
    SHOWN.with(|place| *place.borrow_mut() = Some(shown));
    ask_for_notifications();
    let woken = RcBlock::new(move |_: std::ptr::NonNull<NSNotification>| woke());
    // SAFETY: the block may be called on any thread, and is.
    let _observer = unsafe {
        NSWorkspace::sharedWorkspace().notificationCenter().addObserverForName_object_queue_usingBlock(
            Some(NSWorkspaceDidWakeNotification),
            None,
            None,
            &woken,
        )
    };
    begin();
    app.run();
    Ok(())
}

/// Draws another model, from any thread.
pub fn show(model: MenuModel) {
    DispatchQueue::main().exec_async(move || {
        with_shown(|shown, main| {
            if shown.open {
                shown.waiting = Some(model);
            } else {
                shown.draw(main, &model);
            }
        });
    });
}

/// Ends [`run`], from any thread.
pub fn end() {
    DispatchQueue::main().exec_async(|| {
        if let Some(main) = MainThreadMarker::new() {
            NSApplication::sharedApplication(main).terminate(None);
        }
    });
}

/// Asks for a line of text in a dialog, from any thread but the main one. The answer comes when the user has
/// given it: `None` for one who thought better of it.
pub fn ask(title: &str, text: &str, filled: &str) -> Receiver<Option<String>> {
    let (sender, answer) = channel();
    let [title, text, filled] = [title, text, filled].map(str::to_owned);
    DispatchQueue::main().exec_async(move || {
        let Some(main) = MainThreadMarker::new() else { return };
        let _ = sender.send(dialog(main, &title, &text, &filled));
    });
    answer
}

/// Shows a notification, from any thread. Where the user does not want any, the system shows none.
pub fn notify(notice: &Notice) {
    let (title, body) = (notice.summary.clone(), notice.body.clone());
    DispatchQueue::main().exec_async(move || {
        if !is_bundled() {
            tracing::info!("A notification was not shown: outside of its app there are none.");
            return;
        }
        let content = UNMutableNotificationContent::new();
        content.setTitle(&NSString::from_str(&title));
        content.setBody(&NSString::from_str(&body));
        // One of the same title takes the place of the former.
        let identifier = NSString::from_str(&title);
        let request =
            UNNotificationRequest::requestWithIdentifier_content_trigger(&identifier, &content, None);
        let center = UNUserNotificationCenter::currentNotificationCenter();
        center.addNotificationRequest_withCompletionHandler(&request, None);
    });
}

fn with_shown(act: impl FnOnce(&mut Shown, MainThreadMarker)) {
    let Some(main) = MainThreadMarker::new() else { return };
    SHOWN.with(|place| {
        if let Ok(mut shown) = place.try_borrow_mut()
            && let Some(shown) = shown.as_mut()
        {
            act(shown, main);
        }
    });
}

impl Shown {
    fn draw(&mut self, main: MainThreadMarker, model: &MenuModel) {
        if let Some(button) = self.item.button(main) {
            if self.icon != Some(model.icon) {
                self.icon = Some(model.icon);
                button.setImage(Some(&image(model.icon)));
            }
            let lines = std::iter::once(&model.headline).chain(&model.tooltip);
            let text: Vec<&str> = lines.map(String::as_str).collect();
            button.setToolTip(Some(&NSString::from_str(&text.join("\n"))));
            let label = NSString::from_str(&format!("Toktra. {}", model.headline));
            // SAFETY: a view's own label.
            unsafe {
                let _: () = msg_send![&*button, setAccessibilityLabel: &*label];
            }
        }
        let mut actions = Vec::new();
        let menu = self.menu(main, &model.items, &mut actions);
        menu.setDelegate(Some(ProtocolObject::from_ref(&*self.target)));
        *self.target.ivars().actions.borrow_mut() = actions;
        self.item.setMenu(Some(&menu));
    }

    fn menu(&self, main: MainThreadMarker, items: &[Item], actions: &mut Vec<Action>) -> Retained<NSMenu> {
        let menu = NSMenu::new(main);
        menu.setAutoenablesItems(false);
        for item in items {
            menu.addItem(&self.item_of(main, item, actions));
        }
        menu
    }

    fn item_of(
        &self,
        main: MainThreadMarker,
        item: &Item,
        actions: &mut Vec<Action>,
    ) -> Retained<NSMenuItem> {
        match item {
            Item::Separator => NSMenuItem::separatorItem(main),
            Item::Line(label) => {
                let drawn = labelled(main, label);
                drawn.setEnabled(false);
                drawn
            }
            Item::Submenu { label, items } => {
                let drawn = labelled(main, label);
                drawn.setSubmenu(Some(&self.menu(main, items, actions)));
                drawn
            }
            Item::Command { label, action } => {
                let drawn = labelled(main, label);
                drawn.setTag(actions.len().cast_signed());
                actions.push(action.clone());
                let target: &AnyObject = &self.target;
                // SAFETY: the target lives as long as the status item, and has that method.
                unsafe {
                    drawn.setTarget(Some(target));
                    drawn.setAction(Some(sel!(clicked:)));
                }
                drawn
            }
        }
    }
}

fn labelled(main: MainThreadMarker, label: &str) -> Retained<NSMenuItem> {
    let (title, none) = (NSString::from_str(label), NSString::from_str(""));
    // SAFETY: no action, no key.
    unsafe { NSMenuItem::initWithTitle_action_keyEquivalent(NSMenuItem::alloc(main), &title, None, &none) }
}

fn image(icon: toktra_menu::Icon) -> Retained<NSImage> {
    let points = f64::from(ICON_POINTS);
    let image = NSImage::initWithSize(objc2::AnyThread::alloc(), NSSize::new(points, points));
    for pixels in [ICON_POINTS, 2 * ICON_POINTS] {
        if let Some(bitmap) = bitmap(&icon.draw(pixels)) {
            bitmap.setSize(NSSize::new(points, points));
            image.addRepresentation(&bitmap);
        }
    }
    image
}

fn bitmap(pixmap: &Pixmap) -> Option<Retained<NSBitmapImageRep>> {
    let width = isize::try_from(pixmap.size).ok()?;
    // SAFETY: without planes the framework allocates them, by the numbers given.
    let bitmap = unsafe {
        NSBitmapImageRep::initWithBitmapDataPlanes_pixelsWide_pixelsHigh_bitsPerSample_samplesPerPixel_hasAlpha_isPlanar_colorSpaceName_bitmapFormat_bytesPerRow_bitsPerPixel(
            objc2::AnyThread::alloc(),
            std::ptr::null_mut(),
            width,
            width,
            8,
            4,
            true,
            false,
            NSDeviceRGBColorSpace,
            NSBitmapFormat::AlphaFirst | NSBitmapFormat::AlphaNonpremultiplied,
            4 * width,
            32,
        )
    }?;
    let target = bitmap.bitmapData();
    if target.is_null() {
        return None;
    }
    // SAFETY: the bitmap has as many bytes as four a pixel take, and is nobody else's yet.
    unsafe { std::ptr::copy_nonoverlapping(pixmap.argb.as_ptr(), target, pixmap.argb.len()) };
    Some(bitmap)
}

#[allow(deprecated, reason = "its successor is of macOS 14")]
fn dialog(main: MainThreadMarker, title: &str, text: &str, filled: &str) -> Option<String> {
    NSApplication::sharedApplication(main).activateIgnoringOtherApps(true);
    let alert = NSAlert::new(main);
    alert.setMessageText(&NSString::from_str(title));
    alert.setInformativeText(&NSString::from_str(text));
    alert.addButtonWithTitle(&NSString::from_str("OK"));
    alert.addButtonWithTitle(&NSString::from_str("Cancel"));
    let field = NSTextField::textFieldWithString(&NSString::from_str(filled), main);
    let height = field.frame().size.height;
    field.setFrameSize(NSSize::new(FIELD_POINTS, height));
    alert.setAccessoryView(Some(&field));
    if alert.runModal() != NSAlertFirstButtonReturn {
        return None;
    }
    let given = field.stringValue().to_string();
    Some(given.trim().to_owned()).filter(|given| !given.is_empty())
}

/// The notification center of a program outside of a bundle ends it.
fn is_bundled() -> bool {
    NSBundle::mainBundle().bundleIdentifier().is_some()
}

fn ask_for_notifications() {
    if is_bundled() {
        let done = RcBlock::new(|_: objc2::runtime::Bool, _| {});
        let center = UNUserNotificationCenter::currentNotificationCenter();
        center.requestAuthorizationWithOptions_completionHandler(UNAuthorizationOptions::Alert, &done);
    }
}
