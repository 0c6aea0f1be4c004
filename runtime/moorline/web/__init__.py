"""The front end: `device.js`, a module for any page, and the chat page that is made from it. Static files, no build."""
