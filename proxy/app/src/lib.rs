//! tulle-app
