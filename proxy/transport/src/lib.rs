//! tulle-transport
