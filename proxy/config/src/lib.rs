//! tulle-config
